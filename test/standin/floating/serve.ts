import { execFile } from 'node:child_process';
import { appendFileSync, readFileSync } from 'node:fs';
import { FloatingStandIn } from './api.ts';

/**
 * The stand-in as a program of its own, for a lab's router: `node serve.ts SETTINGS.json`. The API over TLS, the
 * metadata service beside it, and the route of an address as what an order moves.
 */
export interface ServeSettings {
  /** The address at which both listen. */
  readonly host: string;
  readonly token: string;
  readonly key: string;
  readonly cert: string;
  /** From an order to the route. */
  readonly lagMs: number;
  /** The floating IPs, assigned to nobody at first. */
  readonly addresses: readonly string[];
  /** Public address of each server, by its number. */
  readonly servers: Readonly<Record<string, string>>;
  /** The device to which the servers are attached. */
  readonly device: string;
  /** Gets each call, as one line of JSON, before it is answered. */
  readonly calls: string;
}

const settings = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as ServeSettings;
const { host, token, key, cert, lagMs, servers, device, calls } = settings;

function moved(address: string, server: string): void {
  const to = servers[server];
  const route =
    to === undefined ? ['del', `${address}/32`] : ['replace', `${address}/32`, 'via', to, 'dev', device];
  execFile('ip', ['route', ...route], (error) => {
    if (error !== null) process.stderr.write(`${error.message}\n`);
  });
}

const assigned = Object.fromEntries(settings.addresses.map((each) => [each, undefined]));
const api = new FloatingStandIn({
  ...{ token, assigned, lagMs, moved, tls: { key, cert } },
  called: (call) => appendFileSync(calls, `${JSON.stringify(call)}\n`),
});
const metadata = new FloatingStandIn({ token, assigned: {} });
for (const [number, address] of Object.entries(servers)) metadata.servers.set(address, number);
await Promise.all([api.listen(443, host), metadata.listen(80, host)]);
