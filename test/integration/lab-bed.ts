import { writeFile } from 'node:fs/promises';
import { Lab, type Host, type LabOptions } from '../lab/index.ts';
import { slowness } from '../support/patience.ts';

/**
 * Stands in for the daemon's bundle where a test is about the lab and the units: does once, under the daemon's own
 * unit, each thing that the unit must allow or refuse, writes what came of it to report.json, and is then ready and fed
 * its watchdog.
 */
const placeholder = `
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
const role = process.argv[process.argv.indexOf('--role') + 1];
const report = {};
const attempt = (name, act) => {
  try { act(); report[name] = 'done'; } catch (error) { report[name] = error.code ?? 'refused'; }
};
const run = (program, ...args) => execFileSync(program, args, { stdio: 'pipe' });
attempt('floating device', () => {
  try { run('ip', 'link', 'add', 'bm-float', 'type', 'ifb'); } catch { run('ip', 'link', 'show', 'bm-float'); }
});
attempt('floating address', () => run('ip', 'addr', 'replace', '203.0.113.10/32', 'dev', 'bm-float'));
attempt('device up', () => run('ip', 'link', 'set', 'bm-float', 'up'));
attempt('own state', () => writeFileSync('/var/lib/bornemisza/' + role + '/state', 'x'));
const haproxy = '/var/lib/bornemisza/haproxy/' + role;
attempt('haproxy configuration', () => run('haproxy', '-c', '-f', haproxy + '/haproxy.cfg'));
attempt('haproxy directory', () => writeFileSync(haproxy + '/revoked.list', ''));
const fragment = 'protocol direct floating { ipv4; interface "bm-float"; }\\n';
attempt('bird directory', () => writeFileSync('/etc/bird/bornemisza.d/floating.conf', fragment));
attempt('bird.conf', () => writeFileSync('/etc/bird/bird.conf', '', { flag: 'a' }));
attempt('couchdb directory', () => writeFileSync('/var/lib/bornemisza/couchdb/touch', ''));
attempt('etc', () => writeFileSync('/etc/bornemisza/x', ''));
attempt('kernel switches', () => writeFileSync('/proc/sys/net/ipv4/ip_forward', '1'));
attempt('shadow', () => readFileSync('/etc/shadow'));
const configureBird = () => { try { run('birdc', 'configure'); } catch { setTimeout(configureBird, 100); } };
const server = createServer((request, response) => response.end(JSON.stringify(report)));
server.listen('/run/bornemisza/' + role + '/control.sock', () => {
  writeFileSync('/var/lib/bornemisza/' + role + '/report.json', JSON.stringify(report));
  run('systemd-notify', '--ready', '--status=placeholder ' + role);
  setInterval(() => run('systemd-notify', 'WATCHDOG=1'), 5000);
  if (role === 'app') configureBird();
});
process.on('SIGTERM', () => process.exit(0));
process.on('SIGHUP', () => run('systemd-notify', '--status=reloaded'));
`;

export const floating = '203.0.113.10';

/** A hand-written edge: answers with the host's name, on the floating address (there or not) and on the host's own. */
const edge = (host: string): string => `global
  stats socket "/run/bornemisza-haproxy/\${BORNEMISZA_ROLE}/stats.sock" mode 660 level admin expose-fd listeners
defaults
  mode http
  timeout client 10s
  timeout connect 1s
  timeout server 10s
frontend edge
  bind ${floating}:80 transparent
  bind *:8080
  http-request return status 200 content-type text/plain string ${host}
`;

/** A lab whose daemon is the placeholder; app hosts serve their own name. */
export async function placeholderLab(
  directory: string,
  hosts: LabOptions['hosts'],
  options: Partial<LabOptions> = {},
): Promise<Lab> {
  const bundle = `${directory}/bundle.mjs`;
  await writeFile(bundle, placeholder);
  return Lab.create({
    bundle,
    hosts: hosts.map((host) => ({ ...host, files: filesOf(host.name) })),
    ...options,
  });
}

const filesOf = (name: string) => ({
  '/etc/bornemisza/app.toml': { content: '', mode: 0o640, group: 'bornemisza' },
  '/etc/bornemisza/db.toml': { content: '', mode: 0o640, group: 'bornemisza' },
  '/var/lib/bornemisza/haproxy/app/haproxy.cfg': {
    content: edge(name),
    mode: 0o640,
    owner: 'bornemisza',
    group: 'bornemisza-haproxy',
  },
});

/** Whether a datagram from one host's private device reaches the other's. */
export async function hears(listener: Host, speaker: Host): Promise<boolean> {
  const port = 20_000 + Math.floor(Math.random() * 10_000);
  const seconds = 0.6 * slowness();
  const listen = ['timeout', seconds.toFixed(1), 'socat', '-u', `UDP4-RECVFROM:${port}`, 'STDOUT'];
  // Datagrams sent before the listener is there are lost: say it for about as long as it listens.
  const say =
    `for i in $(seq ${Math.ceil(seconds / 0.1)}); do echo hello; sleep 0.08; done | socat -u STDIN ` +
    `UDP4-SENDTO:${listener.privateAddress}:${port}`;
  const [heard] = await Promise.all([listener.exec(listen), speaker.exec(['sh', '-c', say])]);
  return heard.stdout.includes('hello');
}

/** Shortest round trip of some pings in milliseconds, or undefined when none came back. */
export async function ping(
  from: Host,
  address: string,
  count = 1,
  withinSeconds = 1,
): Promise<number | undefined> {
  const { stdout } = await from.exec([
    'ping',
    '-n',
    '-c',
    String(count),
    '-i',
    '0.02',
    '-W',
    String(withinSeconds),
    address,
  ]);
  const shortest = /rtt [^=]*= ([\d.]+)\//.exec(stdout)?.[1];
  return shortest === undefined ? undefined : Number(shortest);
}
