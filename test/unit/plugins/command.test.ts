import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { runCommand } from '../../../src/plugins/command.ts';
import { until } from '../../support/until.ts';

t.test('a program’s status and output are the result, whatever the status', async (t) => {
  const result = await runCommand('sh', ['-c', 'echo out; echo err >&2; exit 3'], { timeoutMs: 5000 });
  t.same(result, { code: 3, stdout: 'out\n', stderr: 'err\n' });
});

t.test('arguments reach the program as they are: no shell reads them', async (t) => {
  const hostile = 'a b; touch /tmp/x $(id) `id` "quoted" \n newline';
  const { stdout } = await runCommand('printf', ['%s', hostile], { timeoutMs: 5000 });
  t.equal(stdout, hostile);
});

t.test('nothing of our environment leaks into the program', async (t) => {
  process.env['BORNEMISZA_TEST_SECRET'] = 'x';
  const { stdout } = await runCommand('env', [], { timeoutMs: 5000 });
  t.notMatch(stdout, /SECRET/);
});

t.test('secrets go by standard input', async (t) => {
  const { stdout } = await runCommand('cat', [], { timeoutMs: 5000, input: 'secret' });
  t.equal(stdout, 'secret');
});

t.test('a program that does not end is killed in time', async (t) => {
  const start = performance.now();
  await t.rejects(runCommand('sleep', ['60'], { timeoutMs: 100 }), {
    code: 'command-timeout',
    outcome: 'retry',
  });
  t.ok(performance.now() - start < 5000);
});

t.test(
  'what a program has started ends with it, and what has left its group is not waited for',
  async (t) => {
    const place = t.testdir();
    const script = 'sleep 60 & echo $! >"$1/stayed"; setsid sleep 60 & echo $! >"$1/gone"; wait';
    const running = runCommand('sh', ['-c', script, 'sh', place], { timeoutMs: 1000 });
    const start = performance.now();
    await t.rejects(running, { code: 'command-timeout' });
    t.ok(performance.now() - start < 30_000, 'though one of them holds its pipes');
    const pidOf = async (name: string): Promise<number> => Number(await readFile(join(place, name), 'utf8'));
    const gone = await pidOf('gone');
    t.teardown(() => process.kill(gone));
    t.ok(process.kill(gone, 0), 'it lives on: nobody outside its group can be ended');
    const stayed = await pidOf('stayed');
    await until(
      async () => /^State:\tZ|^$/m.test(await readFile(`/proc/${stayed}/status`, 'utf8').catch(() => '')),
      { what: 'the other one ends', deadlineMs: 5000, everyMs: 20 },
    );
  },
);

t.test('a program that prints without end is killed', async (t) => {
  await t.rejects(runCommand('yes', [], { timeoutMs: 10_000, maxOutputBytes: 10_000 }), {
    code: 'command-output-too-long',
  });
});

t.test('a missing program is named with the command that installs it', async (t) => {
  await t.rejects(
    runCommand('no-such-program', [], { timeoutMs: 1000, missingNext: 'install it: `dnf install x`' }),
    {
      code: 'command-missing',
      message: 'no-such-program is not installed',
      next: 'install it: `dnf install x`',
    },
  );
});

t.test('an abort ends the program, and starts none', async (t) => {
  const abort = new AbortController();
  const running = runCommand('sleep', ['60'], { timeoutMs: 60_000, signal: abort.signal });
  abort.abort();
  await t.rejects(running, { code: 'command-aborted' });
  await t.rejects(runCommand('true', [], { timeoutMs: 1000, signal: abort.signal }), {
    code: 'command-aborted',
  });
});

t.test('a program that ignores its input is no failure', async (t) => {
  const { code } = await runCommand('true', [], { timeoutMs: 5000, input: 'x'.repeat(1_000_000) });
  t.equal(code, 0);
});
