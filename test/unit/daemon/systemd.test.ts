import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { serviceManager } from '../../../src/daemon/process/systemd.ts';

/** In place of systemd-notify: keeps what it is told, and ends with 1 until it was called `failing` times. */
async function notifier(directory: string, failing: number): Promise<() => Promise<string[]>> {
  const [program, said] = [join(directory, 'systemd-notify'), join(directory, 'said')];
  await writeFile(program, `#!/bin/sh\necho "$*" >>${said}\n[ "$(wc -l <${said})" -gt ${failing} ]\n`);
  await chmod(program, 0o755);
  const before = process.env['PATH'];
  process.env['PATH'] = `${directory}:${before}`;
  t.teardown(() => (process.env['PATH'] = before));
  return async () => (await readFile(said, 'utf8')).trim().split('\n');
}

t.test('the daemon repeats to systemd that it is ready until the message arrives', async (t) => {
  const calls = await notifier(t.testdir(), 2);
  const errors: Error[] = [];
  const systemd = serviceManager({ NOTIFY_SOCKET: '/run/systemd/notify' }, (error) => errors.push(error));
  await systemd.ready('up');
  const ready = `--pid=${process.pid} READY=1 STATUS=up`;
  t.strictSame(await calls(), [ready, ready, ready]);
  t.strictSame(errors, []);
});

t.test('any other message that is lost is not repeated, and stops nothing', async (t) => {
  const calls = await notifier(t.testdir(), 1);
  const errors: Error[] = [];
  const systemd = serviceManager({ NOTIFY_SOCKET: '/run/systemd/notify' }, (error) => errors.push(error));
  await systemd.watchdog();
  t.strictSame(await calls(), [`--pid=${process.pid} WATCHDOG=1`]);
  t.equal(errors.length, 1);
});
