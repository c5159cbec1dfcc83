import t from 'tap';
import { runCli } from './captured-io.ts';
import { FakeDaemon, refusal, status } from './fake-daemon.ts';
import { place } from './place.ts';

t.test('log requests on and off are orders to the app node here', async (t) => {
  const root = await place(t);
  const done = { done: true, message: 'every request is logged' };
  const fake = await new FakeDaemon(root, 'app', { 'POST /v1/log/requests': { json: done } }).start();
  t.teardown(() => fake.stop());
  const log = (...words: string[]) => runCli(['log', 'requests', ...words, '--root', root]);
  t.match(await log('on'), { code: 0, out: `${done.message}\n` });
  t.match(await log('on', '--for', '10m', '--json'), { code: 0, out: `${JSON.stringify(done, null, 2)}\n` });
  t.match(await log('off'), { code: 0 });
  t.strictSame(
    fake.asked.map(({ body }) => body),
    [{ on: true }, { on: true, forMs: 600_000 }, { on: false }],
  );
  t.match(await log('off', '--for', '10m'), { code: 2, err: /--for belongs to `log requests on`/ });
  for (const period of ['59s', '8d', 'long']) t.match(await log('on', '--for', period), { code: 2 }, period);
  t.match(await log('perhaps'), { code: 2, err: /on, off/ });
  t.equal(fake.asked.length, 3, 'nothing of that reached the daemon');
});

t.test('a db node refuses, and says where to run it', async (t) => {
  const root = await place(t);
  const json = refusal('request-log-no-edge', 'a db node has no edge', 'run it on an app node');
  const fake = await new FakeDaemon(root, 'db', { 'POST /v1/log/requests': { status: 409, json } }).start();
  t.teardown(() => fake.stop());
  const answer = await runCli(['log', 'requests', 'on', '--root', root]);
  t.match(answer, { code: 1, err: /no edge[^]*run it on an app node/ });
});

t.test('status shows the log of requests while it is on', async (t) => {
  const root = await place(t);
  const logs = { requestLogUntil: '2026-11-30T12:00:00.000Z' };
  let on = true;
  const answers = { 'GET /v1/status': () => ({ json: status(on ? logs : {}) }) };
  const fake = await new FakeDaemon(root, 'app', answers).start();
  t.teardown(() => fake.stop());
  const line = /^ +log +every request until \S+ \S+ \(bornemisza log requests off\)$/m;
  t.match((await runCli(['status', '--root', root])).out, line);
  on = false;
  t.notMatch((await runCli(['status', '--root', root])).out, /every request/);
});
