import type { ChildProcess } from 'node:child_process';
import { chmod, chown, mkdir, mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FirewallBase } from '../../src/plugins/firewall/rules.ts';
import { namespaceOf, spawnInside } from '../lab/namespace.ts';
import { claimPlace } from '../lab/place.ts';
import { must, run } from '../lab/process.ts';
import { until } from '../support/until.ts';

/**
 * One host with its firewall's helper (nobody, with one right), the private network on one side of it and the internet
 * on the other, as namespaces. One for a test's process.
 */

export const PATIENCE_MS = 60_000;
const NOBODY = 65534;
export const helperScript = new URL('../../systemd/firewall', import.meta.url).pathname;
export const [NODE, OUTSIDE] = ['10.77.0.11', '198.51.100.11'];
export const [NODE6, NEAR6, OUTSIDE6, FAR6] = [
  'fd00:77::11',
  'fd00:77::99',
  '2001:db8:51::11',
  '2001:db8:51::9',
];
export const [APP, DB, STRANGER] = ['10.77.0.12', '10.77.0.21', '10.77.0.99'];
export const BASE: FirewallBase = {
  roles: ['app', 'db'],
  sshPorts: [22],
  sshFrom: [],
  privateDevice: 'eth1',
  privateNetwork: '10.77.0.0/24',
  ports: {
    public: [80, 443],
    gossip: [4101],
    appDoor: 8443,
    appSharing: 8444,
    appStats: 8404,
    dbDoor: 6984,
    dbStats: 8405,
    dbPeers: [6985, 4369, 9100],
    metrics: [],
  },
  neighbours: [],
  allow: [{ protocol: 'tcp', port: 9000, from: '198.51.100.0/24' }],
  beside: false,
};
export const LISTENING = [22, 80, 443, 4101, 8443, 8404, 6984, 6985, 9000, 9999];

const place = await claimPlace();
export const root = await mkdtemp(join(tmpdir(), 'bm-fw-'));
const at = (path: string): string => join(root, path);
export const [base, list, mark, state] = [
  at('etc/bornemisza/firewall.base'),
  at('run/bornemisza/app/firewall'),
  at('run/bornemisza-firewall/mark'),
  at('run/bornemisza-firewall/state'),
];
const names = {
  node: namespaceOf(place, 'node'),
  near: namespaceOf(place, 'near'),
  far: namespaceOf(place, 'far'),
};
export const inside = (name: keyof typeof names, argv: readonly string[]): readonly string[] => [
  'ip',
  'netns',
  'exec',
  names[name],
  ...argv,
];
export const children: ChildProcess[] = [];
/** What the helper and the echoes wrote. */
export let said = '';

/** In the place's cgroup: all of them end with this process, however it ends. */
export function start(argv: readonly string[], heard: (text: string) => void): ChildProcess {
  const child = spawnInside(place.cgroup, argv, ['ignore', 'pipe', 'pipe']);
  for (const end of [child.stdout, child.stderr]) end?.on('data', (text: Buffer) => heard(text.toString()));
  children.push(child);
  return child;
}
export const note = (text: string): void => {
  said += text;
};

/** Makes the hosts. What listens is an echo at each port of `LISTENING`. */
export async function prepare(): Promise<void> {
  const commands = [
    ...Object.values(names).map((name) => `netns add ${name}`),
    `link add eth1 netns ${names.node} type veth peer name eth1 netns ${names.near}`,
    `link add eth0 netns ${names.node} type veth peer name eth0 netns ${names.far}`,
    `-n ${names.node} addr add ${NODE}/24 dev eth1`,
    `-n ${names.node} addr add ${OUTSIDE}/24 dev eth0`,
    `-n ${names.far} addr add 198.51.100.9/24 dev eth0`,
    ...[APP, DB, STRANGER].map((address) => `-n ${names.near} addr add ${address}/24 dev eth1`),
    `-n ${names.node} addr add ${NODE6}/64 dev eth1 nodad`,
    `-n ${names.near} addr add ${NEAR6}/64 dev eth1 nodad`,
    `-n ${names.node} addr add ${OUTSIDE6}/64 dev eth0 nodad`,
    `-n ${names.far} addr add ${FAR6}/64 dev eth0 nodad`,
    ...['node eth0', 'node eth1', 'near eth1', 'far eth0', 'node lo'].map((each) => {
      const [name = '', device = ''] = each.split(' ');
      return `-n ${names[name as 'node']} link set ${device} up`;
    }),
  ];
  for (const command of commands) await must(['ip', ...command.split(' ')]);
  for (const directory of [
    'etc/bornemisza',
    'run/bornemisza/app',
    'run/bornemisza-firewall',
    'var/lib/bornemisza-firewall',
  ])
    await mkdir(at(directory), { recursive: true });
  await chmod(root, 0o755);
  for (const directory of ['run/bornemisza-firewall', 'var/lib/bornemisza-firewall'])
    await chown(at(directory), NOBODY, NOBODY);
  for (const port of LISTENING)
    start(inside('node', ['socat', `TCP6-LISTEN:${port},fork,reuseaddr,ipv6only=0`, 'EXEC:cat']), note);
}

/** Ends everything in them. */
export async function end(): Promise<void> {
  await place.close();
  await rm(root, { recursive: true, force: true });
}

export function startHelper(): ChildProcess {
  const only = [
    '--inh-caps=-all,+net_admin',
    '--ambient-caps=-all,+net_admin',
    '--bounding-set=-all,+net_admin',
  ];
  const as = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--no-new-privs'];
  const env = ['env', `BORNEMISZA_FIREWALL_ROOT=${root}`];
  return start(inside('node', [...env, 'setpriv', ...as, ...only, 'bash', helperScript]), note);
}

export async function replace(path: string, text: string | Uint8Array): Promise<void> {
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}

export const letIn = async (): Promise<string> => {
  const { stdout } = await run(inside('node', ['nft', 'list', 'table', 'inet', 'bornemisza']));
  return [...stdout.matchAll(/set (\w+) \{[^}]*?elements = \{([^}]*)\}/g)]
    .map(([, set, text = '']) => `${set}: ${text.replaceAll(/\s+/g, ' ').trim()}`)
    .join('; ');
};
export const waitFor = (members: string): Promise<boolean> =>
  until(async () => (await letIn()) === members || Promise.reject(new Error(`${await letIn()}; ${said}`)), {
    deadlineMs: PATIENCE_MS,
    everyMs: 20,
    what: members,
  });
export const hear = (words: string): Promise<boolean> =>
  until(() => said.includes(words) || Promise.reject(new Error(`the helper said: ${said}`)), {
    deadlineMs: PATIENCE_MS,
    what: words,
  });
export const MEMBERS = `apps: ${NODE}, ${APP}; dbs: ${DB}`;
export const LIST = `app ${NODE}\napp ${APP}\ndb ${DB}\n`;

/** Waits until a look of the helper that began after the list was written is over. */
export async function looked(what: string): Promise<void> {
  const { mtimeNs } = await stat(list, { bigint: true });
  const isOver = async (): Promise<boolean> => {
    const began = (await stat(mark, { bigint: true })).mtimeNs;
    return began > mtimeNs && (await stat(state, { bigint: true })).mtimeNs > began;
  };
  await until(isOver, { deadlineMs: PATIENCE_MS, what });
}

/** How a new connection to the node ends: open, refused (TCP reset), unreachable (ICMP), or silent. */
export async function knock(from: string, port: number): Promise<string> {
  const far = from === 'far' || from === FAR6;
  const bind = far || from === NEAR6 ? '' : `,bind=${from}`;
  const to = from === FAR6 ? `[${OUTSIDE6}]` : from === NEAR6 ? `[${NODE6}]` : far ? OUTSIDE : NODE;
  const target = `TCP:${to}:${port},connect-timeout=1${bind}`;
  const { code, stderr } = await run(inside(far ? 'far' : 'near', ['socat', '-u', '/dev/null', target]));
  if (code === 0) return 'open';
  if (/refused/.test(stderr)) return 'refused';
  if (/No route to host/.test(stderr)) return 'unreachable';
  return /timed out/i.test(stderr) ? 'silent' : stderr;
}

/** A link from `from` that talks until it ends; tells when it talks, and how long it was silent before it ended. */
export function talk(from: string, port: number) {
  const program = `exec 3<>/dev/tcp/${NODE}/${port}`;
  const words =
    `s=\${EPOCHREALTIME/./}; while echo x >&3 && read -t 3 -u 3; do s=\${EPOCHREALTIME/./}; echo alive; ` +
    'read -t 0.02 <> <(:); done; echo ended';
  const route = `ip route replace ${NODE} dev eth1 src ${from}`;
  let text = '';
  start(inside('near', ['bash', '-c', `${route}; ${program}; ${words}`]), (chunk) => {
    text = `${text}${chunk}`.slice(-200);
  });
  return {
    alive: () => until(() => text.includes('alive'), { deadlineMs: PATIENCE_MS, what: 'a link that talks' }),
    ended: () => until(() => text.includes('ended'), { deadlineMs: PATIENCE_MS, what: 'a link that ends' }),
    talks: () => !text.includes('ended'),
  };
}
