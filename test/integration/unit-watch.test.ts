import { type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';
import { UnitWatch } from '../../src/daemon/health/unit-watch.ts';
import { runCommand } from '../../src/host/command.ts';
import { testInNamespace } from '../support/namespace.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

/** The watch itself, without systemd, in a namespace with a /run of its own: real processes, and files for cgroups. */
const PROGRAM = join(import.meta.dirname, '../../systemd/unit-watch');
const WATCHED = '/run/bornemisza/unit-watch/watched';
const STOPPED = '/run/bornemisza-unit-watch/stopped';
const CGROUPS = '/sys/fs/cgroup';
const SHOP = 'system.slice/shop.service';
const MAIL = 'system.slice/system-my\\x2dmail.slice/my-mail@1.service';

testInNamespace(import.meta.filename, ['--net', '--mount'], 'the watch over stopped units', inside);

async function inside(t: Test): Promise<void> {
  const mount = async (directory: string): Promise<void> => {
    const { code, stderr } = await runCommand('mount', ['-t', 'tmpfs', 'tmpfs', directory], {
      timeoutMs: 5000,
    });
    if (code !== 0) throw new Error(stderr);
  };
  await mount('/run');
  await mount(CGROUPS);
  for (const file of [WATCHED, STOPPED]) await mkdir(join(file, '..'), { recursive: true });
  const started: ChildProcess[] = [];
  const start = (...args: readonly [string, ...string[]]): ChildProcess => {
    const child = spawnWithUs(args[0], args.slice(1), { stdio: 'ignore' });
    started.push(child);
    return child;
  };
  t.teardown(async () => {
    for (const child of started) {
      const ended = child.exitCode !== null || child.signalCode !== null ? undefined : once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
  });
  const put = async (cgroup: string, ...of: readonly ChildProcess[]): Promise<void> => {
    const directory = join(CGROUPS, cgroup);
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'cgroup.procs'), of.map(({ pid }) => `${pid}\n`).join(''));
  };
  const stopped = (): Promise<string> => readFile(STOPPED, 'utf8').catch(() => '');
  const says = async (t: Test, text: string, what: string): Promise<void> => {
    await until(async () => (await stopped()) === text, { what });
    t.pass(what);
  };

  const watch = start('bash', PROGRAM);
  const [one, two] = [start('sleep', '3600'), start('sleep', '3600')];
  await put(SHOP, one);
  await put(MAIL, two);
  const ours = new UnitWatch({ watched: WATCHED, stopped: STOPPED });
  t.teardown(() => ours.close());
  const changed: string[] = [];
  ours.watch(
    new Map([
      [SHOP, 'shop'],
      [MAIL, 'mail'],
    ]),
    (unit) => changed.push(unit),
  );

  await t.test('a unit is stopped, and continues; the daemon is notified of both', async (t) => {
    t.equal(await ours.isStopped(SHOP), false);
    one.kill('SIGSTOP');
    await says(t, `${SHOP}\n`, 'the one that is stopped');
    await until(() => changed.includes('shop'), { what: 'without a question' });
    t.same([await ours.isStopped(SHOP), await ours.isStopped(MAIL)], [true, false]);
    two.kill('SIGSTOP');
    await says(t, `${SHOP}\n${MAIL}\n`, 'both, one of them with a name that systemd escaped');
    await until(() => changed.includes('mail'), { what: 'of the other one too' });
    changed.length = 0;
    one.kill('SIGCONT');
    await says(t, `${MAIL}\n`, 'one continues');
    await until(() => changed.includes('shop'), { what: 'that it continues' });
    t.notOk(changed.includes('mail'), 'and of nothing else');
    t.same([await ours.isStopped(SHOP), await ours.isStopped(MAIL)], [false, true]);
    two.kill('SIGCONT');
    await says(t, '', 'and the other');
  });

  await t.test('all processes of a unit, and those that have ended are none of them', async (t) => {
    await put(SHOP, one, two);
    one.kill('SIGSTOP');
    const control = start('sleep', '3600');
    await put(MAIL, control);
    control.kill('SIGSTOP');
    await says(t, `${MAIL}\n`, 'one of two processes of the shop is at work, so only the control');
    two.kill('SIGSTOP');
    await says(t, `${SHOP}\n${MAIL}\n`, 'both are stopped');
    // sleep(1) asks for no end of a child, so that one stays as a zombie. The shell before would.
    const parent = start('bash', '-c', 'sleep 3600 & exec sleep 3600');
    const zombie = await until(
      async () => {
        const { stdout } = await runCommand('pgrep', ['-P', String(parent.pid)], { timeoutMs: 5000 });
        const pid = Number(stdout);
        const isExecuted = (await readFile(`/proc/${parent.pid}/comm`, 'utf8').catch(() => '')) === 'sleep\n';
        return pid > 0 && isExecuted ? pid : undefined;
      },
      { what: 'a child of sleep' },
    );
    process.kill(zombie, 'SIGKILL');
    await until(async () => (await stateOf(zombie)) === 'Z', { what: 'a zombie' });
    await writeFile(join(CGROUPS, SHOP, 'cgroup.procs'), `${one.pid}\n${zombie}\n`);
    await writeFile(join(CGROUPS, MAIL, 'cgroup.procs'), `${zombie}\n`);
    await says(
      t,
      `${SHOP}\n`,
      'a zombie is no process; a unit with nothing else has ended, which others say',
    );
    await put(SHOP);
    await says(t, '', 'no process at all');
    for (const each of [one, two, control]) each.kill('SIGCONT');
  });

  await t.test('a name in the form of a state changes nothing', async (t) => {
    const program = `${t.testdir({})}/x) T 1\n) T`;
    await runCommand('cp', ['/usr/bin/sleep', program], { timeoutMs: 5000 });
    const named = start(program, '3600');
    await put(SHOP, named);
    await put(MAIL, two);
    two.kill('SIGSTOP');
    await says(t, `${MAIL}\n`, 'the control');
    named.kill('SIGSTOP');
    await says(t, `${SHOP}\n${MAIL}\n`, 'it is stopped now');
    two.kill('SIGCONT');
    await says(t, `${SHOP}\n`, 'and the control continues');
  });

  await t.test('it opens nothing but cgroups of system units, whatever the file names', async (t) => {
    await rm(STOPPED);
    two.kill('SIGSTOP');
    await put('elsewhere', two);
    const strange = [
      '../elsewhere',
      '/sys/fs/cgroup/elsewhere',
      'system.slice/../elsewhere',
      'elsewhere',
      'elsewhere/x.service',
      '$(touch /run/planted)/x.service',
      'system.slice/*.service',
      `system.slice/${'x'.repeat(1000)}.service`,
    ];
    await writeFile(WATCHED, [...strange, MAIL, ''].join('\n'));
    await says(t, `${MAIL}\n`, 'and the next line counts');
    await t.rejects(stat('/run/planted'), { code: 'ENOENT' });
    two.kill('SIGCONT');
  });

  await t.test('what it said counts only while it says it again', async (t) => {
    await put(SHOP, one);
    await writeFile(WATCHED, `${SHOP}\n`);
    one.kill('SIGSTOP');
    await says(t, `${SHOP}\n`, 'it is stopped');
    const first = (await stat(STOPPED)).mtimeMs;
    await until(async () => (await stat(STOPPED)).mtimeMs > first + 2000, { what: 'it says it again' });
    t.ok(await ours.isStopped(SHOP));
    watch.kill('SIGSTOP');
    await until(async () => !(await ours.isStopped(SHOP)), { what: 'its word is old' });
    watch.kill('SIGCONT');
    await until(() => ours.isStopped(SHOP), { what: 'and new again' });
  });
}

async function stateOf(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return /.*\) (\S)/s.exec(text)?.[1];
}
