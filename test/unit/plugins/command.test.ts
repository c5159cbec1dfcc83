import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { runCommand } from '../../../src/host/command.ts';
import { until } from '../../support/until.ts';

/** For what ends by itself, on however busy a machine. */
const PATIENT = { timeoutMs: 60_000 };

t.test('a program’s status and output are the result, whatever the status', async (t) => {
  const result = await runCommand('sh', ['-c', 'echo out; echo err >&2; exit 3'], PATIENT);
  t.same(result, { code: 3, stdout: 'out\n', stderr: 'err\n' });
});

t.test('arguments reach the program as they are: no shell reads them', async (t) => {
  const hostile = 'a b; touch /tmp/x $(id) `id` "quoted" \n newline';
  const { stdout } = await runCommand('printf', ['%s', hostile], PATIENT);
  t.equal(stdout, hostile);
});

t.test('nothing of our environment leaks into the program', async (t) => {
  process.env['BORNEMISZA_TEST_SECRET'] = 'x';
  const { stdout } = await runCommand('env', [], PATIENT);
  t.notMatch(stdout, /SECRET/);
});

t.test('secrets go by standard input', async (t) => {
  const { stdout } = await runCommand('cat', [], { ...PATIENT, input: 'secret' });
  t.equal(stdout, 'secret');
});

t.test('a program that does not end is killed in time', async (t) => {
  // It would sleep for an hour: that this ends shows that it was killed.
  await t.rejects(runCommand('sleep', ['3600'], { timeoutMs: 100 }), {
    code: 'command-timeout',
    outcome: 'retry',
  });
});

t.test(
  'what a program has started ends with it, and what has left its group is not waited for',
  async (t) => {
    const place = t.testdir();
    const script =
      'sleep 3600 & echo $! >"$1/stayed"; setsid sh -c \'echo $$ >"$1/gone"; exec sleep 3600\' sh "$1" & wait';
    const abort = new AbortController();
    const running = runCommand('sh', ['-c', script, 'sh', place], { ...PATIENT, signal: abort.signal });
    const pidOf = (name: string): Promise<number> =>
      until(async () => Number(await readFile(join(place, name), 'utf8')) || undefined, { what: name });
    const gone = await pidOf('gone');
    t.teardown(() => process.kill(gone));
    const stayed = await pidOf('stayed');
    abort.abort();
    // One of them holds its pipes for an hour: that this ends shows that they are not waited for.
    await t.rejects(running, { code: 'command-aborted' });
    t.ok(process.kill(gone, 0), 'it lives on: nobody outside its group can be ended');
    await until(
      async () => {
        const status = await readFile(`/proc/${stayed}/status`, 'utf8').catch(() => undefined);
        return status === undefined || /^State:\tZ/m.test(status);
      },
      { what: 'the other one ends' },
    );
  },
);

t.test('a program that prints without end is killed', async (t) => {
  await t.rejects(runCommand('yes', [], { ...PATIENT, maxOutputBytes: 10_000 }), {
    code: 'command-output-too-long',
  });
});

t.test('a missing program is named with the command that installs it', async (t) => {
  await t.rejects(
    runCommand('no-such-program', [], { ...PATIENT, missingNext: 'install it: `dnf install x`' }),
    {
      code: 'command-missing',
      message: 'no-such-program is not installed',
      next: 'install it: `dnf install x`',
    },
  );
});

t.test('an abort ends the program, and starts none', async (t) => {
  const abort = new AbortController();
  const running = runCommand('sleep', ['3600'], { ...PATIENT, signal: abort.signal });
  abort.abort();
  await t.rejects(running, { code: 'command-aborted' });
  await t.rejects(runCommand('true', [], { ...PATIENT, signal: abort.signal }), {
    code: 'command-aborted',
  });
});

t.test('a program that ignores its input is no failure', async (t) => {
  const { code } = await runCommand('true', [], { ...PATIENT, input: 'x'.repeat(1_000_000) });
  t.equal(code, 0);
});

t.test(
  'a program that ended together with another one, and is given up in that moment, is no fault',
  async (t) => {
    for (const other of ['before', 'after'] as const) {
      const given = new AbortController();
      const watch = (): void => {
        spawn('true').once('exit', () => given.abort());
      };
      if (other === 'before') watch();
      const ran = runCommand('true', [], { timeoutMs: 10_000, signal: given.signal });
      if (other === 'after') watch();
      // Both end while this process looks away, and Node reaps them at once.
      const sinceMs = performance.now();
      while (performance.now() - sinceMs < 300);
      const end = await ran.then(
        ({ code }) => `ended with ${code}`,
        (error: unknown) => (error as { code: string }).code,
      );
      t.match(end, /^(ended with 0|command-aborted)$/, `${other}: ${end}`);
    }
  },
);
