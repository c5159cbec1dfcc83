import { mock } from 'node:test';
import t, { type Test } from 'tap';
import type { UpgradeAnswer } from '../../../src/daemon/control/api.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { type Answer, FakeDaemon } from './fake-daemon.ts';
import { place } from './place.ts';

const HOSTS = ['db1', 'app2', 'app1'];
type State = UpgradeAnswer['state'];
type Step = UpgradeAnswer['hosts'][number]['step'];

function rollout(
  state: State,
  steps: readonly Step[],
  more: Partial<UpgradeAnswer> = {},
  versions = HOSTS.map(() => '0.1.0-1'),
): UpgradeAnswer {
  return {
    state,
    startedAt: state === 'none' ? '' : '2026-01-01T00:00:00.000Z',
    why: '',
    next: '',
    hosts: HOSTS.map((host, at) => ({
      host,
      members: [{ name: `${host}/${host.startsWith('db') ? 'db' : 'app'}`, version: versions[at] ?? '' }],
      step: steps[at] ?? 'waiting',
      problem: '',
    })),
    ...more,
  };
}

/**
 * A host whose daemon tells these answers one after the other, the last one for ever, and whose dnf knows one newer
 * package or none.
 */
async function scene(t: Test, answers: readonly UpgradeAnswer[], newer = '', start: Answer = done) {
  const root = await place(t);
  const left = [...answers];
  const daemon = await new FakeDaemon(root, 'app', {
    'GET /v1/status': { json: { name: 'app1/app' } },
    'GET /v1/upgrade': () => ({ json: left.length > 1 ? left.shift() : left[0] }),
    'POST /v1/upgrade/start': start,
    'POST /v1/upgrade/stop': done,
    'POST /v1/upgrade/resume': done,
  }).start();
  t.teardown(() => daemon.stop());
  const run = (...args: string[]) =>
    runCli(['upgrade', ...args, '--root', root], {
      host: fakeHost({ programs: { dnf: () => ({ stdout: newer === '' ? '' : `${newer}\n` }) } }),
    });
  return {
    daemon,
    run,
    posted: () => daemon.asked.filter(({ method }) => method === 'POST').map(({ path }) => path),
  };
}
const done: Answer = { json: { done: true, message: 'done' } };

t.test('a rollout starts if dnf has a newer version, and each step is printed once', async (t) => {
  const { run, posted } = await scene(
    t,
    [
      rollout('none', []),
      rollout('running', ['working'], { why: 'db1 is upgrading' }),
      rollout('running', ['done'], { why: 'app2/app is down' }),
      rollout('running', ['done', 'working', 'waiting'], { why: 'app2 is upgrading' }),
      rollout('finished', ['done', 'done', 'done'], {}, ['0.1.0-2', '0.1.0-2', '0.1.0-2']),
    ],
    '0.1.0-2',
  );
  const { code, out } = await run();
  t.equal(code, 0);
  t.same(posted(), ['/v1/upgrade/start']);
  t.same(out.trim().split('\n').slice(0, 5), [
    'in this order: db1, app2, app1',
    'db1: upgrading',
    'db1: done, runs 0.1.0-1',
    'waiting: app2/app is down',
    'app2: upgrading',
  ]);
  t.match(out, /finished: 0\.1\.0-2 everywhere\n$/);
});

t.test('where nothing is newer and all run the same, nothing begins', async (t) => {
  const same = await scene(t, [rollout('finished', [])]);
  const { code, out } = await same.run();
  t.equal(code, 0);
  t.match(out, /nothing to do/);
  t.same(same.posted(), []);
  const mixed = await scene(t, [
    rollout('none', [], {}, ['0.1.0-1', '0.1.0-2', '0.1.0-2']),
    rollout('finished', []),
  ]);
  await mixed.run();
  t.same(mixed.posted(), ['/v1/upgrade/start'], 'the rest is brought after');
});

t.test('a dry run changes nothing and says what there is, in which order, and what holds', async (t) => {
  const { run, posted } = await scene(t, [rollout('none', [], { why: 'app2/app is down' })], '0.1.0-2');
  const { code, out } = await run('--dry-run');
  t.equal(code, 0);
  t.match(out, /bornemisza-node 0\.1\.0-2 is available, 0\.1\.0-1 runs/);
  t.match(out, /app2\/app is down/);
  t.match(out, /db1[^]*app2[^]*app1/);
  t.same(posted(), []);
  const json = JSON.parse((await run('--dry-run', '--json')).out) as { newer: string; needed: boolean };
  t.match(json, { newer: '0.1.0-2', needed: true });
});

t.test('a stopped rollout ends the command with 1, a refusal by a guard with 5', async (t) => {
  const stopped = rollout('stopped', ['failed'], { why: 'dnf failed on db1', next: 'on db1: look' });
  const watching = await scene(t, [rollout('none', []), rollout('running', []), stopped], '0.1.0-2');
  const { code, err } = await watching.run();
  t.equal(code, 1);
  t.match(err, /dnf failed on db1\n.*next:.* on db1: look/);
  const refusal: Answer = {
    status: 409,
    json: { error: { code: 'guard-rollout-stopped', message: 'was stopped', next: 'resume' } },
  };
  const refused = await scene(t, [stopped], '0.1.0-2', refusal);
  t.equal((await refused.run()).code, 5);
  t.equal((await refused.run('--scheduled')).code, 5, 'no timer resumes it');
});

t.test('a timer begins and does not wait, and leaves alone what runs', async (t) => {
  const idle = await scene(t, [rollout('finished', [])], '0.1.0-2');
  t.match(await idle.run('--scheduled'), { code: 0, out: /a rollout starts/ });
  t.same(idle.posted(), ['/v1/upgrade/start']);
  const busy = await scene(t, [rollout('running', ['working'])], '0.1.0-2');
  t.match(await busy.run('--scheduled'), { code: 0, out: /already running/ });
  t.same(busy.posted(), []);
});

t.test('status, stop and resume ask the daemon', async (t) => {
  const stopped = rollout('stopped', ['failed'], { why: 'dnf failed on db1', next: 'on db1: look' });
  const { run, posted } = await scene(t, [stopped, stopped, rollout('finished', [])]);
  t.match((await run('status')).out, /is stopped: dnf failed on db1\n.*on db1: look[^]*failed/);
  t.match(JSON.parse((await run('status', '--json')).out), { state: 'stopped' });
  t.match(await run('stop'), { code: 0, out: 'done\n' });
  t.equal((await run('resume')).code, 0);
  t.same(posted(), ['/v1/upgrade/stop', '/v1/upgrade/resume']);
});

t.test('a host may be disturbed in its own hour alone, and only while all is well', async (t) => {
  const hosts = (host: string) => ({ hosts: [{ host, members: [], step: 'waiting' as const, problem: '' }] });
  const ours = await scene(t, [rollout('none', [], hosts('app1'))]);
  t.teardown(() => mock.timers.reset());
  mock.timers.enable({ apis: ['Date'] });
  for (const [time, code] of [
    ['08:00:00.000', 0],
    ['08:40:00.000', 0],
    ['08:40:00.001', 5],
    ['08:59:59.999', 5],
    ['09:00:00.000', 0],
  ] as const) {
    mock.timers.setTime(Date.parse(`2027-01-15T${time}Z`));
    t.equal((await ours.run('turn')).code, code, time);
  }
  const others = await scene(t, [rollout('none', [], hosts('db1'))]);
  t.match(await others.run('turn'), { code: 5, err: /this hour is for db1/ });
  const unwell = await scene(t, [rollout('none', [], { ...hosts('app1'), why: 'db1/db is down' })]);
  t.match(await unwell.run('turn'), { code: 5, err: /db1\/db is down/ });
  for (const state of ['running', 'stopped'] as const) {
    const busy = await scene(t, [rollout(state, [], hosts('app1'))]);
    t.match(await busy.run('turn'), { code: 5, err: new RegExp(`a rollout is ${state}`) });
  }
});

t.test('without dnf, or without its answer, the command reports that', async (t) => {
  const root = await place(t);
  const daemon = await new FakeDaemon(root, 'app', {
    'GET /v1/upgrade': { json: rollout('none', []) },
  }).start();
  t.teardown(() => daemon.stop());
  const dnf = () => ({ code: 1, stderr: 'Error: Failed to download metadata for repo' });
  const offline = await runCli(['upgrade', '--root', root], { host: fakeHost({ programs: { dnf } }) });
  t.match(offline, { code: 1, err: /Failed to download metadata/ });
  const missing = await runCli(['upgrade', '--root', root], { host: fakeHost({}) });
  t.match(missing, { code: 1, err: /dnf is not installed/ });
  t.same(
    daemon.asked.filter(({ method }) => method === 'POST'),
    [],
  );
});
