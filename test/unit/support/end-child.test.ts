import { once } from 'node:events';
import t from 'tap';
import { endChild } from '../../support/end-child.ts';
import { until } from '../../support/until.ts';
import { spawnWithUs } from '../../support/with-us.ts';

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

t.test('a program that ignores the signal is killed after the deadline, with what it started', async (t) => {
  // As a HAProxy whose master and worker both hang.
  const hangs = 'trap "" INT; while :; do sleep 0.1; done';
  // Both ignore it before the first word.
  const script = `trap "" INT; bash -c '${hangs}' & echo $!; ${hangs}`;
  const child = spawnWithUs('bash', ['-c', script], { stdio: ['ignore', 'pipe', 'ignore'] });
  t.teardown(() => child.kill('SIGKILL'));
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const worker = Number(line.toString());
  t.teardown(() => isAlive(worker) && process.kill(worker, 'SIGKILL'));
  t.equal(await endChild(child, 'SIGINT', 100), false);
  t.equal(child.signalCode, 'SIGKILL');
  await until(() => !isAlive(worker), { what: 'the worker ends' });
});

t.test('a program that obeys gets no other signal', async (t) => {
  const child = spawnWithUs('sleep', ['1000'], { stdio: 'ignore' });
  t.equal(await endChild(child, 'SIGTERM'), true);
  t.equal(child.signalCode, 'SIGTERM');
});

t.test('a program that a signal ended before is not waited for', async (t) => {
  const child = spawnWithUs('sleep', ['1000'], { stdio: 'ignore' });
  child.kill('SIGKILL');
  await once(child, 'exit');
  t.equal(await endChild(child, 'SIGTERM'), true);
});
