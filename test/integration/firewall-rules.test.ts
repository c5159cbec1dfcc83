import type { ChildProcess } from 'node:child_process';
import { chmod, chown, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type FirewallBase, renderBase } from '../../src/plugins/firewall/rules.ts';
import { namespaceOf, spawnInside } from '../lab/namespace.ts';
import { claimPlace } from '../lab/place.ts';
import { must, run } from '../lab/process.ts';
import { until } from '../support/until.ts';

/**
 * The helper and its rules in the kernel of one host, judged by who gets through. The helper is nobody, with one right.
 */
t.setTimeout(900_000);

const PATIENCE_MS = 60_000;
const NOBODY = 65534;
const helperScript = new URL('../../systemd/firewall', import.meta.url).pathname;
const [NODE, OUTSIDE] = ['10.77.0.11', '198.51.100.11'];
const [NODE6, NEAR6, OUTSIDE6, FAR6] = ['fd00:77::11', 'fd00:77::99', '2001:db8:51::11', '2001:db8:51::9'];
const [APP, DB, STRANGER] = ['10.77.0.12', '10.77.0.21', '10.77.0.99'];
const BASE: FirewallBase = {
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
const LISTENING = [22, 80, 443, 4101, 8443, 8404, 6984, 6985, 9000, 9999];

const place = await claimPlace();
const root = await mkdtemp(join(tmpdir(), 'bm-fw-'));
const at = (path: string): string => join(root, path);
const [base, list, mark, state] = [
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
const inside = (name: keyof typeof names, argv: readonly string[]): readonly string[] => [
  'ip',
  'netns',
  'exec',
  names[name],
  ...argv,
];
const children: ChildProcess[] = [];
let said = '';

/** In the place's cgroup: all of them end with this process, however it ends. */
function start(argv: readonly string[], heard: (text: string) => void): ChildProcess {
  const child = spawnInside(place.cgroup, argv, ['ignore', 'pipe', 'pipe']);
  for (const end of [child.stdout, child.stderr]) end?.on('data', (text: Buffer) => heard(text.toString()));
  children.push(child);
  return child;
}
const note = (text: string): void => {
  said += text;
};

t.before(async () => {
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
});
t.teardown(async () => {
  await place.close();
  await rm(root, { recursive: true, force: true });
});

function startHelper(): ChildProcess {
  const only = [
    '--inh-caps=-all,+net_admin',
    '--ambient-caps=-all,+net_admin',
    '--bounding-set=-all,+net_admin',
  ];
  const as = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--no-new-privs'];
  const env = ['env', `BORNEMISZA_FIREWALL_ROOT=${root}`];
  return start(inside('node', [...env, 'setpriv', ...as, ...only, 'bash', helperScript]), note);
}

async function replace(path: string, text: string | Uint8Array): Promise<void> {
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}

const letIn = async (): Promise<string> => {
  const { stdout } = await run(inside('node', ['nft', 'list', 'table', 'inet', 'bornemisza']));
  return [...stdout.matchAll(/set (\w+) \{[^}]*?elements = \{([^}]*)\}/g)]
    .map(([, set, text = '']) => `${set}: ${text.replaceAll(/\s+/g, ' ').trim()}`)
    .join('; ');
};
const waitFor = (members: string): Promise<boolean> =>
  until(async () => (await letIn()) === members || Promise.reject(new Error(`${await letIn()}; ${said}`)), {
    deadlineMs: PATIENCE_MS,
    everyMs: 20,
    what: members,
  });
const hear = (words: string): Promise<boolean> =>
  until(() => said.includes(words) || Promise.reject(new Error(`the helper said: ${said}`)), {
    deadlineMs: PATIENCE_MS,
    what: words,
  });
const MEMBERS = `apps: ${NODE}, ${APP}; dbs: ${DB}`;
const LIST = `app ${NODE}\napp ${APP}\ndb ${DB}\n`;

/** Waits until a look of the helper that began after the list was written is over. */
async function looked(what: string): Promise<void> {
  const { mtimeNs } = await stat(list, { bigint: true });
  const isOver = async (): Promise<boolean> => {
    const began = (await stat(mark, { bigint: true })).mtimeNs;
    return began > mtimeNs && (await stat(state, { bigint: true })).mtimeNs > began;
  };
  await until(isOver, { deadlineMs: PATIENCE_MS, what });
}

/** How a new connection to the node ends: open, refused, or silent. */
async function knock(from: string, port: number): Promise<string> {
  const far = from === 'far' || from === FAR6;
  const bind = far || from === NEAR6 ? '' : `,bind=${from}`;
  const to = from === FAR6 ? `[${OUTSIDE6}]` : from === NEAR6 ? `[${NODE6}]` : far ? OUTSIDE : NODE;
  const target = `TCP:${to}:${port},connect-timeout=1${bind}`;
  const { code, stderr } = await run(inside(far ? 'far' : 'near', ['socat', '-u', '/dev/null', target]));
  if (code === 0) return 'open';
  return /refused/.test(stderr) ? 'refused' : /timed out/i.test(stderr) ? 'silent' : stderr;
}

/** A link from `from` that talks until it ends; tells when it talks, and how long it was silent before it ended. */
function talk(from: string, port: number) {
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

t.test('without rules everything is open', async (t) => {
  for (const port of LISTENING)
    await until(async () => (await knock('far', port)) === 'open', {
      deadlineMs: PATIENCE_MS,
      what: `${port}`,
    });
  const post = inside('node', [
    'env',
    `BORNEMISZA_FIREWALL_ROOT=${root}`,
    'bash',
    helperScript,
    'first-look',
  ]);
  const first = run(post, { timeoutMs: PATIENCE_MS });
  t.not((await run(['timeout', '1', ...post])).code, 0, 'its start is not over before its first look');
  startHelper();
  t.equal((await first).code, 0);
  t.match(await readFile(state, 'utf8'), / off /);
  await until(async () => (await stat(mark).catch(() => undefined)) !== undefined, {
    deadlineMs: PATIENCE_MS,
    what: said,
  });
  t.equal(await knock('far', 9999), 'open');
});

t.test('each sender reaches what it needs, and no more', async (t) => {
  await replace(list, LIST);
  await replace(base, renderBase(BASE).text);
  await waitFor(MEMBERS);
  const cases: readonly (readonly [from: string, port: number, is: string])[] = [
    ...[22, 80, 443, 9000].map((port) => ['far', port, 'open'] as const),
    ...[4101, 8443, 8404, 6984, 6985, 9999].map((port) => ['far', port, 'silent'] as const),
    ...[22, 80, 4101, 8443, 8404, 6984].map((port) => [APP, port, 'open'] as const),
    ...[6985, 9000, 9999].map((port) => [APP, port, 'refused'] as const),
    ...[22, 4101, 8404, 6985].map((port) => [DB, port, 'open'] as const),
    ...[8443, 6984, 9999].map((port) => [DB, port, 'refused'] as const),
    ...[22, 80, 4101].map((port) => [STRANGER, port, 'open'] as const),
    ...[8443, 8404, 6984, 6985, 9999].map((port) => [STRANGER, port, 'refused'] as const),
  ];
  const found = await Promise.all(cases.map(([from, port]) => knock(from, port)));
  for (const [index, [from, port, is]] of cases.entries()) t.equal(found[index], is, `${from} to ${port}`);
});

t.test('over IPv6 neighbours are found, the site and ssh are open, and nothing else is', async (t) => {
  for (const name of ['near', 'far', 'node'] as const)
    await must(inside(name, ['ip', '-6', 'neigh', 'flush', 'all']));
  const cases: readonly (readonly [from: string, port: number, is: string])[] = [
    ...[22, 80, 443].map((port) => [FAR6, port, 'open'] as const),
    ...[4101, 8443, 8404, 6984, 6985, 9000, 9999].map((port) => [FAR6, port, 'silent'] as const),
    ...[22, 80, 443].map((port) => [NEAR6, port, 'open'] as const),
    ...[4101, 8443, 8404, 6984, 6985, 9000, 9999].map((port) => [NEAR6, port, 'refused'] as const),
  ];
  const found = await Promise.all(cases.map(([from, port]) => knock(from, port)));
  for (const [index, [from, port, is]] of cases.entries()) t.equal(found[index], is, `${from} to ${port}`);
});

t.test('a removed address loses its open connections, and no other does', async (t) => {
  const [door, other, ssh] = [talk(APP, 8443), talk(APP, 6984), talk(APP, 22)];
  for (const link of [door, other, ssh]) await link.alive();
  const began = performance.now();
  await replace(list, `app ${NODE}\ndb ${DB}\n`);
  for (const link of [door, other]) await link.ended();
  t.comment(`cut ${Math.round(performance.now() - began)} ms after the list`);
  t.equal(await knock(APP, 8443), 'refused');
  t.ok(ssh.talks(), 'ssh is not the cluster’s to cut');
  await replace(list, LIST);
  await until(async () => (await knock(APP, 8443)) === 'open', {
    deadlineMs: PATIENCE_MS,
    what: 'let in again',
  });
});

t.test('a list that holds anything but members changes nothing', async (t) => {
  const hostile: Readonly<Record<string, string>> = {
    'a command': 'app $(touch /tmp/firewall-was-here)\n',
    'a rule': 'app 10.77.0.13 } ; flush ruleset ; #\n',
    'an address outside': `${LIST}app 8.8.8.8\n`,
    'an octet too large': 'app 10.77.0.999\n',
    'an octal octet': 'app 010.077.0.08x\n',
    'another word': 'root 10.77.0.12\n',
    'no line at all': '',
    'an empty line': '\n',
    'too many lines': 'app 10.77.0.13\n'.repeat(513),
    'a line without end': 'app 10.77.0.13'.repeat(10_000),
    'bytes of zero': 'app 10.77.0.13\0x\n',
  };
  for (const [what, text] of Object.entries(hostile)) {
    await replace(list, text);
    await looked(what);
    t.equal(await letIn(), MEMBERS, what);
  }
  t.equal(await stat('/tmp/firewall-was-here').catch(() => undefined), undefined);
  t.match(said, 'an address is outside of the private network');
  t.match(said, 'it has more than 512 lines');
});

t.test('a pipe in place of the list stops nothing, and what is flushed comes back', async (t) => {
  await rm(list);
  await must(['mkfifo', list]);
  await must(inside('node', ['nft', 'flush', 'ruleset']));
  const began = performance.now();
  await waitFor(MEMBERS);
  t.comment(`back after ${Math.round(performance.now() - began)} ms`);
  t.match(said, 'was changed by another program');
  await rm(list);
});

t.test('rules that nft refuses leave the old ones', async (t) => {
  const { text } = renderBase(BASE);
  await replace(base, text.replace('ct state invalid drop', 'ct state nonsense drop'));
  await replace(list, `app ${NODE}\n`);
  await hear('nft refuses the rules');
  t.equal(await letIn(), MEMBERS);
  await replace(base, 'not ours\n');
  await hear('is not what `bornemisza firewall on` writes');
  t.equal(await letIn(), MEMBERS);
  await replace(base, text);
  await waitFor(`apps: ${NODE}`);
});

t.test(
  'when the helper ends the rules stay, and the next one knows the members without a daemon',
  async (t) => {
    const before = children.filter(({ spawnargs }) => spawnargs.includes(helperScript));
    for (const { pid } of before) if (pid !== undefined) process.kill(-pid, 'SIGKILL');
    t.equal(await letIn(), `apps: ${NODE}`);
    await rm(list, { force: true });
    await must(inside('node', ['nft', 'flush', 'ruleset']));
    startHelper();
    await waitFor(`apps: ${NODE}`);
  },
);

t.test('without a base the table goes', async (t) => {
  await rm(base);
  await until(async () => (await knock('far', 9999)) === 'open', { deadlineMs: PATIENCE_MS, what: 'open' });
  t.equal((await run(inside('node', ['nft', 'list', 'tables']))).stdout, '');
});
