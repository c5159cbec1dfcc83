import t from 'tap';
import { runCommand } from '../../../src/plugins/command.ts';

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
