import { dirname } from 'node:path';
import { readIfPresent, replaceFile } from '../../host/files.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Io } from '../io.ts';
import type { SetupOptions } from './options.ts';
import { ensureDirectory } from './owners.ts';
import type { Step } from './steps.ts';

export const DROP_IN = '/etc/systemd/system/bornemisza@app.service.d/layer2.conf';

/**
 * What the daemon needs beyond its unit to speak ARP. No other mode has it. arping lays its rights down and takes them
 * up again, by calls that stay refused: it is told that they went well, and goes on with what it was given.
 */
export const DROP_IN_TEXT = `\
# Written by bornemisza for floating.mode "layer2": asking who has an address, and saying who has it, are ARP.
[Service]
AmbientCapabilities=CAP_NET_RAW
CapabilityBoundingSet=CAP_NET_RAW
RestrictAddressFamilies=AF_PACKET
SystemCallFilter=~capset:0 setuid:0
`;

/**
 * Lets the daemon speak ARP.
 *
 * @throws CliFailure `options-invalid` where BGP is asked for as well
 */
export async function layer2Step(io: Io, options: SetupOptions, root: string): Promise<Step> {
  const { bgpNeighbor, bgpAs, bgpLocalAs, bgpPasswordFile, bgpMultihop } = options;
  const bgp = [bgpNeighbor, bgpAs, bgpLocalAs, bgpPasswordFile, bgpMultihop];
  if (bgp.some((each) => each !== undefined)) {
    throw new CliFailure(
      EXIT.usage,
      'options-invalid',
      'floating mode layer2 takes no option about BGP: it is for providers without',
      'leave the --bgp-… options out, or take --floating-mode bgp',
    );
  }
  const file = `${root}${DROP_IN}`;
  const present = (await readIfPresent(file)) === DROP_IN_TEXT;
  return {
    title: `write ${file}: the daemon may speak ARP (CAP_NET_RAW)`,
    already: present ? 'there already' : undefined,
    run: async () => {
      await ensureDirectory(dirname(file), 0o755);
      await replaceFile(file, DROP_IN_TEXT, { mode: 0o644 });
      if (root !== '') return undefined;
      const { code, stderr } = await io.host.run('systemctl', ['daemon-reload']);
      return code > 0 ? `systemctl daemon-reload failed: ${stderr.trim()}` : undefined;
    },
  };
}
