import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Config, ownPorts } from '../daemon/config/config.ts';
import type { Finding } from '../plugins/contract.ts';
import { proofOf } from '../plugins/haproxy/snippet-proof.ts';
import {
  alarmOf,
  alertsIn,
  chooseSnippets,
  complaintIn,
  refusedOf,
  spoken,
} from '../plugins/haproxy/snippets.ts';
import { answered } from './answered.ts';
import type { Host } from './io.ts';

/** What is wrong with the files of haproxy.d: by our rules, and by HAProxy's own where it is installed. */
export async function snippetFaults(config: Config, host: Host): Promise<Finding[]> {
  const { used, alarms } = chooseSnippets({ ...config.snippets, ports: ownPorts(config) });
  if (used.length === 0) return [...alarms];
  const directory = await mkdtemp(join(tmpdir(), 'bornemisza-snippets-'));
  const path = join(directory, 'haproxy.cfg');
  const services = config.services.map(({ name }) => name);
  try {
    const refused = await refusedOf(used, async ({ name }, beside) => {
      const text = proofOf(services, beside);
      await writeFile(path, text);
      const { code, stdout, stderr } = answered(await host.run('haproxy', ['-c', '-f', path]));
      if (code === 0 || code === -1) return undefined;
      const said = alertsIn(`${stdout}\n${stderr}`);
      return (
        complaintIn(said, { config: text, path, name }) ?? { why: spoken(said[0] ?? `exit ${code}`, path) }
      );
    });
    return [...alarms, ...[...refused].map(([{ file }, complaint]) => alarmOf(file, complaint))];
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
