import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Host } from '../lab/index.ts';

/** The service `site` of the benches, in place of the static one: it fails when it is told to. */
export const SERVICE_PORT = 8080;
export const UNIT = 'bench-service.service';
const MODE = '/run/bench/mode';
export type Mode = 'well' | '500' | 'hang';

const SERVICE = `name = "site"
port = ${SERVICE_PORT}
path_prefix = "/"
required = true
`;

/** The daemon is told by the caller, who may have more to change. */
export async function installService(host: Host): Promise<void> {
  const program = fileURLToPath(new URL('answering-program.ts', import.meta.url));
  await host.writeFile('/root/answering.ts', await readFile(program, 'utf8'));
  await host.writeFile(MODE, 'well');
  const command = `/usr/libexec/bornemisza/node /root/answering.ts ${SERVICE_PORT} ${MODE}`;
  await host.writeFile(`/etc/systemd/system/${UNIT}`, `[Service]\nExecStart=${command}\n`);
  await host.disable('bornemisza-site.service');
  await host.must(['systemctl', 'daemon-reload']);
  await host.start(UNIT);
  await describe(host);
}

/** The service's file. Without the unit's name checks find each fault. The daemon is told by the caller. */
export async function describe(host: Host, unit = false): Promise<void> {
  const content = unit ? `${SERVICE}unit = "${UNIT}"\n` : SERVICE;
  await host.writeFile('/etc/bornemisza/services.d/site.toml', { content, group: 'bornemisza', mode: 0o640 });
}

/** @returns Unix time, ms, just before */
export async function setMode(host: Host, mode: Mode): Promise<number> {
  const atMs = Date.now();
  await host.writePlain(MODE, mode);
  return atMs;
}

/** A signal to every process of the service. @returns Unix time, ms, just before */
export async function signal(host: Host, name: NodeJS.Signals): Promise<number> {
  const pids = await host.pidsOf(UNIT);
  const atMs = Date.now();
  for (const pid of pids) process.kill(pid, name);
  return atMs;
}
