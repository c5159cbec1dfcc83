/** README.md and docs/install.md, typed to the letter on machines with nothing but what a distribution brings. */
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { stripVTControlCharacters } from 'node:util';
import t from 'tap';
import { run } from '../../scripts/run.ts';
import type { MembersAnswer } from '../../src/daemon/control/api.ts';
import { type Host, Lab } from '../lab/index.ts';
import { repository as tree } from '../lab/layers.ts';
import { typedIn, typedUnder } from '../support/manual.ts';
import { until } from '../support/until.ts';
import { libraryNeeds, makeStubs, useRepository } from './repository-bed.ts';
import { secretsOf } from './secret-scan.ts';

const STEP_MS = 300_000;
/** What nobody types, or cannot be typed here; where it is tried. */
const ELSEWHERE: ReadonlyMap<string, string> = new Map([
  ['Firewall', 'firewalld is no program of these machines: test/unit/docs/commands.test.ts'],
  ['SELinux', 'SELinux is off here: test/selinux/'],
  ['Without BGP', 'the text of a drop-in, which test/integration/units.test.ts holds'],
  ['BIRD', 'options of `init` and `join`: test/unit/docs/commands.test.ts and test/unit/cli/setup.test.ts'],
  ['A repository of your own', 'on a web server of its own: test/package/repository.test.ts'],
  ['npm install', 'the tree that runs this test is installed'],
]);

const manual = typedIn('docs/install.md');
const readme = typedIn('README.md');
const of = typedUnder;
/** What the user data of a machine has it run. */
const cloudInit = readFileSync(join(tree, 'rpm/cloud-init.yaml'), 'utf8');
/** Where an operator is for the whole of this test: the packages lie there. */
const HOME = '/root/packages';

/** One for each way of joining: by a line on a terminal, and by cloud-init.yaml. */
const [APPS, DBS] = [2, 1];

let lab: Lab;
let apps: readonly Host[] = [];
let dbs: readonly Host[] = [];
const typed = new Set<string>();

/**
 * As an operator types it, on a terminal of its own, in the directory of the packages. The operator here is root, to
 * whom sudo changes nothing.
 *
 * @returns what it printed
 */
async function type(host: Host, command: string, input = ''): Promise<string> {
  typed.add(command);
  const inHome = `cd ${HOME} && ${command.replaceAll(/\bsudo /g, '')}`;
  const line = ['script', '--quiet', '--return', '--command', inHome, '/dev/null'];
  const { code, stdout, stderr } = await host.exec(line, { stdin: input, timeoutMs: STEP_MS });
  const shown = stripVTControlCharacters(stdout).replaceAll('\r\n', '\n');
  // What doctor finds wrong with a machine of a lab is no matter of the document.
  if (code !== 0 && !(code === 1 && command.includes(' doctor')))
    throw new Error(`${host.name}: ${command}: ${code}: ${shown}${stderr}`);
  return shown;
}

t.before(async () => {
  const directory = await mkdtemp('/var/tmp/bornemisza-manual-');
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  for (const command of of(manual, 'Building the package')) {
    if (ELSEWHERE.has(command)) continue;
    typed.add(command);
    await run('sh', ['-c', command]);
  }
  const offered = join(directory, 'repository');
  await mkdir(offered);
  const [install = ''] = of(manual, 'Install');
  const files = install.split(' ').filter((word) => word.endsWith('.rpm'));
  const built = files.map((file) => join(tree, 'build', basename(file)));
  const needs = (await Promise.all(built.map((file) => libraryNeeds(file)))).flat();
  await makeStubs(directory, offered, needs, {
    'selinux-policy-targeted': { version: '38', provides: [] },
    policycoreutils: { version: '3.5', provides: [] },
    'libselinux-utils': { version: '3.5', provides: [] },
    iputils: { version: '2021', provides: [] },
  });
  await run('createrepo_c', ['--quiet', offered]);
  lab = await Lab.create({
    hosts: [
      ...Array.from({ length: APPS }, (_, at) => ({ name: `app${at + 1}`, roles: ['app'] as const })),
      ...Array.from({ length: DBS }, (_, at) => ({ name: `db${at + 1}`, roles: ['db'] as const })),
    ],
    package: built[0] ?? '',
    binds: [
      { source: offered, target: '/srv/lab-repository' },
      { source: join(tree, 'build'), target: HOME },
    ],
    diskMegabytes: 1024,
  });
  [apps, dbs] = [lab.hosts.slice(0, APPS), lab.hosts.slice(APPS)];
  for (const host of lab.hosts) {
    await useRepository(host);
    // Whoever sits there says yes.
    await host.writeFile('/etc/dnf/dnf.conf', '[main]\nplugins=0\nassumeyes=1\n');
  }
});
t.teardown(() => lab?.close());

/** As cloud-init.yaml has it, on a machine whose private address comes 5 s after the command began. */
async function setItselfUp(host: Host, token: string): Promise<void> {
  const [, file = ''] = /^ {2}- path: (\S+)$/m.exec(cloudInit) ?? [];
  const [, line = ''] = /^ {2}- '(bornemisza join .*)'$/m.exec(cloudInit) ?? [];
  await host.writeFile(file, { content: `${token}\n`, mode: 0o600 });
  const shown = await host.must(['ip', '-4', '-o', 'addr', 'show', 'to', host.privateAddress]);
  const [, device = '', , address = ''] = shown.trim().split(/\s+/);
  await host.must(['ip', 'addr', 'del', address, 'dev', device]);
  const joined = host.must(['sh', '-c', line], { timeoutMs: STEP_MS });
  await delay(5000);
  await host.must(['ip', 'addr', 'add', address, 'dev', device]);
  await joined;
}

t.test('README: from nothing to nodes in traffic and a page', async (t) => {
  const [first, last] = [apps[0], dbs.at(-1)] as [Host, Host];
  const joining = lab.hosts.filter((host) => host !== first && host !== last);
  const sinceMs = performance.now();
  const took = (what: string): void =>
    t.comment(`${what} after ${Math.round((performance.now() - sinceMs) / 1000)} s`);
  const [install = ''] = of(manual, 'Install');
  for (const host of lab.hosts) await type(host, install);
  took(`${lab.hosts.length} installations`);
  const [init = '', appTokens = '', dbTokens = '', join_ = ''] = of(
    readme,
    'From nothing to three app and three db nodes',
  );
  const made = await type(first, init);
  t.match(made, /site +https:\/\/198\.51\.100\.\d+\/\n/);
  t.match(made, /scp root@\S+:\/root\/bornemisza-recovery-shop\.txt \.\n[^]*\nPassphrase: \S+\n$/);
  took('the first node');
  const tokens: Record<string, string[]> = {};
  for (const [role, command] of [
    ['app', appTokens],
    ['db', dbTokens],
  ] as const)
    tokens[role] = [...(await type(first, command)).matchAll(/^bm1\.\S+/gm)].map(([token]) => token);
  t.same([tokens['app']?.length, tokens['db']?.length], [2, 3], 'a token for each of five machines');
  for (const host of joining) {
    const [role = ''] = host.roles;
    t.match(await type(host, join_, `${tokens[role]?.pop()}\n`), `bornemisza@${role}`, host.name);
  }
  await setItselfUp(last, tokens['db']?.pop() ?? '');
  t.not(
    (await last.exec(['test', '-e', '/run/bornemisza-token'])).code,
    0,
    'a token that was used is deleted',
  );
  took('the last one');

  await until(
    async () => {
      const { members } = JSON.parse(await first.must(['bornemisza', 'members', '--json'])) as MembersAnswer;
      const out = members
        .filter(({ rotation }) => rotation !== 'in')
        .map(({ name, reason }) => `${name}: ${reason}`);
      if (members.length !== lab.hosts.length || out.length > 0) throw new Error(out.join('; '));
      return true;
    },
    { what: 'all nodes in traffic', deadlineMs: STEP_MS, everyMs: 500 },
  );
  took('all of them in traffic');
  for (const host of apps) {
    const page = await lab.client.request({ url: `https://${host.publicAddress}/`, timeoutMs: 5000 });
    t.match(page.body, /bornemisza/i, `${host.name} shows the page of an edge without a service`);
  }
  took('the page');

  const look = of(readme, 'First commands').filter((command) => !command.endsWith(' top'));
  for (const command of look) {
    const said = await type(first, command.replace('db2/db', 'db1/db'));
    t.ok(said.length > 20, command);
    t.notMatch(said, /bornemisza: /, command);
  }
});

t.test('README: a service of your own', async (t) => {
  const text = await readFile(join(tree, 'README.md'), 'utf8');
  const [, toml = '', file = ''] =
    /```toml\n((# (\/etc\/\S+)\n)[^]*?)```/.exec(text)?.filter((_, at) => at !== 2) ?? [];
  const [reload = ''] = of(readme, 'Your own service');
  const page = `require('http').createServer((_, a) => a.end('my shop')).listen(3000, '127.0.0.1')`;
  for (const host of apps) {
    await host.must(['systemd-run', '--unit=shop', '/usr/libexec/bornemisza/node', '-e', page]);
    await host.writeFile(file, { content: toml, mode: 0o644 });
    t.match(await type(host, reload), /valid/);
    await until(
      async () => {
        const url = `https://${host.publicAddress}/shop`;
        const { status, body } = await lab.client.request({ url, timeoutMs: 5000 });
        if (status !== 200 || body !== 'my shop') throw new Error(`${status} ${body}`);
        return true;
      },
      { what: `the shop at ${host.name}`, deadlineMs: 60_000, everyMs: 500 },
    );
  }
});

t.test('install.md: what follows the installation', async (t) => {
  const [a, d] = [apps[0], dbs[0]] as [Host, Host];
  const [, init = '', ...more] = of(manual, 'Install');
  t.equal(`sudo ${init}`, of(readme, 'From nothing to three app and three db nodes')[0], 'the README’s');
  typed.add(init);
  for (const command of more.filter((each) => each.includes('token create'))) await type(a, command);
  typed.add(more.find((each) => each.includes(' join ')) ?? '');
  t.match(await type(d, more.at(-1) ?? ''), /control socket +ok/);

  for (const command of of(manual, 'Upgrade and downgrade')) await type(a, command);
  for (const section of ['By itself, each night', 'dnf-automatic'])
    for (const command of of(manual, section)) await type(a, command);
  t.equal((await a.must(['systemctl', 'is-active', 'bornemisza-rollout.timer'])).trim(), 'active');
  const dropIn = '/etc/systemd/system/dnf-automatic-install.timer.d/bornemisza.conf';
  t.equal((await a.exec(['test', '-s', dropIn])).code, 0, dropIn);

  for (const command of of(manual, 'Remove')) await type(d, command);
  const left = await d.must([
    'sh',
    '-c',
    'ls -d /etc/bornemisza /var/lib/bornemisza /usr/libexec/bornemisza 2>&1 | cat',
  ]);
  t.equal(left.match(/No such file/g)?.length, 3, left);
  t.notMatch(await d.readFile('/etc/passwd'), 'bornemisza');
});

t.test('no secret of a machine is in what it gives to somebody who helps', async (t) => {
  const found = await Promise.all(apps.map((host) => secretsOf(host)));
  const secrets = [...new Set(found.flat())];
  t.ok(secrets.length > 50, `${secrets.length} secrets`);
  for (const host of apps) {
    await host.must(['bornemisza', 'debug', 'bundle', '--output', '/root/bundle.tar.gz']);
    t.equal(await host.must(['stat', '-c', '%a', '/root/bundle.tar.gz']), '600\n');
    const given = await host.must(['tar', '-xzOf', '/root/bundle.tar.gz']);
    t.ok(given.includes('app1/app'), 'names of nodes are no secrets');
    const leaked = secrets.filter((secret) => given.includes(secret));
    t.same(leaked, [], host.name);
  }
});

t.test('every command of install.md was typed, or is tried elsewhere', async (t) => {
  const untyped = manual.filter(
    ({ section, command }) => !typed.has(command) && !ELSEWHERE.has(section) && !ELSEWHERE.has(command),
  );
  t.same(untyped, []);
  t.ok(typed.size > 15, `${typed.size} commands`);
});
