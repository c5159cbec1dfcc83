import { writeFileSync } from 'node:fs';
import { chmod, mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { runAsUnit, runConfined } from '../../../src/cli/confined.ts';
import { askPrograms } from '../../../src/cli/doctor/programs.ts';
import type { Host } from '../../../src/cli/io.ts';
import { byPipe, withPipe } from '../../../src/cli/own-domain.ts';
import { processIo } from '../../../src/cli/process-io.ts';
import { buildProgram } from '../../../src/cli/program.ts';
import { ensureDirectory } from '../../../src/cli/setup/owners.ts';
import { Verb } from '../../../src/cli/verb.ts';
import { fakeHost, runCli } from './captured-io.ts';

/** Each command with its way to it, e.g. `authority add`. */
function verbsUnder(verb: Verb, way: readonly string[] = []): [string, Verb][] {
  return verb.commands.flatMap((each) => {
    if (!(each instanceof Verb)) throw new Error(`${each.name()} was not made by addVerb`);
    const path = [...way, each.name()];
    return each.commands.length === 0 ? [[path.join(' '), each] as [string, Verb]] : verbsUnder(each, path);
  });
}

t.test('only these commands stay root where root calls them, each with a reason', async (t) => {
  const all = verbsUnder(buildProgram(processIo(async () => {})));
  t.ok(all.length > 20);
  t.same(
    all
      .filter(([, { asRoot }]) => asRoot !== undefined)
      .map(([path]) => path)
      .sort(),
    [
      'accounts setup',
      'authority add',
      'authority rotate-root',
      'config migrate',
      'debug bundle',
      'doctor',
      'firewall confirm',
      'firewall off',
      'firewall on',
      'firewall status',
      'init',
      'join',
      'leave',
      'web new',
    ],
  );
});

t.test('every other command gives root up before it reads anything, and never under --root', async (t) => {
  const order: string[] = [];
  const host: Host = {
    ...fakeHost({}),
    becomeDaemon: async () => void order.push('becomes bornemisza'),
    run: async (program) => {
      order.push(program);
      return { code: 0, stdout: '', stderr: '' };
    },
  };
  for (const argv of [['status'], ['members'], ['events'], ['token', 'create', '--role', 'app'], ['leave']]) {
    order.length = 0;
    await runCli(argv, { host });
    t.equal(order[0], 'becomes bornemisza', argv.join(' '));
  }
  order.length = 0;
  await runCli(['status', '--root', t.testdir()], { host });
  t.same(order, []);
});

t.test(
  'what the daemon writes is read by HAProxy and BIRD as its user, confined, and for root alone',
  async (t) => {
    const ran: (readonly [string, readonly string[]])[] = [];
    const record = (program: string) => (args: readonly string[]) => {
      ran.push([program, args]);
      return {};
    };
    const programs = { haproxy: record('haproxy'), bird: record('bird'), birdc: record('birdc') };
    const host = fakeHost({ programs: { ...programs, 'systemd-run': record('systemd-run') } });
    const run = t.testdir();
    for (const [program, args] of [
      ['haproxy', ['-c', '-f', '/x']],
      ['bird', ['-p', '-c', '/x']],
      ['birdc', ['configure']],
    ] as const) {
      ran.length = 0;
      await runConfined(host, '', program, args, { run });
      t.equal(ran.length, 2);
      t.match(ran[0], [program, [/^(-v|--version)$/]], 'whether it is there is asked without a file');
      const [by, given = []] = ran[1] ?? [];
      t.equal(by, 'systemd-run');
      for (const wanted of [
        'User=bornemisza',
        'NoNewPrivileges=yes',
        'CapabilityBoundingSet=',
        'ProtectSystem=strict',
        'PrivateNetwork=yes',
        'RuntimeMaxSec=15',
      ])
        t.ok(given.includes(`--property=${wanted}`), wanted);
      t.same(given.slice(given.indexOf('--') + 1), ['env', program, ...args]);
      t.notOk(given.includes('--pipe'), 'D-Bus is handed nothing');
    }
    t.match(await runConfined(fakeHost({}), '', 'bird', []), { code: -1 }, 'not installed');

    ran.length = 0;
    const member = fakeHost({ uid: 1000, programs });
    t.equal((await askPrograms(member, '', undefined)).haproxy.size, 0);
    t.same(ran, [], 'a member of the group runs nothing that the daemon wrote');
  },
);

t.test('what a transient unit printed comes by files, which are gone afterwards', async (t) => {
  const run = t.testdir();
  const print = (args: readonly string[]): { code: number; stderr: string } => {
    for (const [name, text] of [
      ['StandardOutput', 'read\n'],
      ['StandardError', 'line 3: what is that\n'],
    ] as const) {
      const start = `--property=${name}=file:`;
      writeFileSync(args.find((each) => each.startsWith(start))?.slice(start.length) ?? '', text);
    }
    return { code: 1, stderr: '' };
  };
  const said = await runAsUnit(fakeHost({ programs: { 'systemd-run': print } }), [], ['x'], { run });
  t.same(said, { code: 1, stdout: 'read\n', stderr: 'line 3: what is that\n' });

  const refused = fakeHost({ programs: { 'systemd-run': () => ({ code: 1, stderr: 'no bus' }) } });
  t.same(await runAsUnit(refused, [], ['x'], { run }), { code: 1, stdout: '', stderr: 'no bus' });
  t.same(await readdir(run), []);
});

t.test('ip prints into a pipe, as its domain may not write into a socket', async (t) => {
  const { host } = processIo(async () => {});
  t.match((await host.run('readlink', ['/proc/self/fd/1'])).stdout, /^socket:/);
  t.match((await host.run(...byPipe('readlink', ['/proc/self/fd/1']))).stdout, /^pipe:/);
  t.match(await host.run(...byPipe('sh', ['-c', 'echo no >&2; exit 3'])), { code: 3, stderr: 'no\n' });
  t.same(withPipe('ip', ['addr']), byPipe('ip', ['addr']));
  t.same(withPipe('systemctl', ['show']), ['systemctl', ['show']]);
});

t.test('a directory for another user is made only where each one above it is root’s alone', async (t) => {
  const top = t.testdir();
  const ids = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  await mkdir(join(top, 'open'));
  await chmod(join(top, 'open'), 0o777);
  await t.rejects(ensureDirectory(join(top, 'open/state'), 0o700, ids), { code: 'directory-not-roots' });
  await t.rejects(stat(join(top, 'open/state')), { code: 'ENOENT' });
  await ensureDirectory(join(top, 'open/own'), 0o2750);
  t.equal(
    (await stat(join(top, 'open/own'))).mode & 0o7777,
    0o2750,
    'one of the caller’s own is made anywhere',
  );
});
