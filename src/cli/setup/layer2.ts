import { dirname } from 'node:path';
import { readIfPresent, replaceFile } from '../../host/files.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Io } from '../io.ts';
import type { SetupOptions } from './options.ts';
import { ensureDirectory } from './owners.ts';
import type { Step } from './steps.ts';

export const DROP_IN = '/etc/systemd/system/bornemisza@app.service.d/layer2.conf';

/**
 * What the daemon needs beyond its unit to send ARP. No other mode has it. arping drops its capabilities and raises
 * them again, by calls that stay forbidden: they report success without effect, and arping works with what it has.
 */
export const DROP_IN_TEXT = `\
# Written by bornemisza for floating.mode "layer2", which sends ARP to find the holder of an address and to announce it.
[Service]
AmbientCapabilities=CAP_NET_RAW
CapabilityBoundingSet=CAP_NET_RAW
RestrictAddressFamilies=AF_PACKET
SystemCallFilter=~capset:0 setuid:0
`;

/**
 * Allows the daemon to send ARP.
 *
 * @throws CliFailure `options-invalid` where BGP is asked for as well
 */
export async function layer2Step(io: Io, options: SetupOptions, root: string): Promise<Step> {
  const { bgpNeighbor, bgpAs, bgpLocalAs, bgpPasswordFile, bgpMultihop } = options;
  const { bgpProvider, bgpHoldTime, bgpBfd } = options;
  const session = [bgpNeighbor, bgpAs, bgpLocalAs, bgpPasswordFile, bgpMultihop];
  const bgp = [...session, bgpProvider, bgpHoldTime, bgpBfd];
  if (bgp.some((each) => each !== undefined)) {
    throw new CliFailure(
      EXIT.usage,
      'options-invalid',
      'floating mode layer2 does not use BGP, so it takes no --bgp-… option',
      'remove the --bgp-… options, or use --floating-mode bgp',
    );
  }
  const file = `${root}${DROP_IN}`;
  const present = (await readIfPresent(file)) === DROP_IN_TEXT;
  return {
    title: `write ${file}: the daemon may send ARP (CAP_NET_RAW)`,
    already: present ? 'it exists' : undefined,
    run: async () => {
      await ensureDirectory(dirname(file), 0o755);
      await replaceFile(file, DROP_IN_TEXT, { mode: 0o644 });
      if (root !== '') return undefined;
      const { code, stderr, silence } = await io.host.run('systemctl', ['daemon-reload']);
      return code > 0 || silence !== undefined
        ? `systemctl daemon-reload failed: ${stderr.trim()}`
        : undefined;
    },
  };
}
