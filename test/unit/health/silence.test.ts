import { type AddressInfo, connect, createServer } from 'node:net';
import t, { type Test } from 'tap';
import { systemClock } from '../../../src/daemon/clock.ts';
import type { ProbeResult, ProbeTarget } from '../../../src/daemon/health/probe.ts';
import { Silence } from '../../../src/daemon/health/silence.ts';
import { until } from '../../support/until.ts';
import { spawnWithUs } from '../../support/with-us.ts';

const DOOR = 8443;
const DAEMON = 4101;
const ANSWERS: ProbeResult = { passed: true, detail: 'accepts connections' };
const REFUSES: ProbeResult = { passed: false, detail: 'connection refused', failure: 'refused' };
const NO_ROUTE: ProbeResult = { passed: false, detail: 'EHOSTUNREACH' };
const UNASKED: ProbeResult = { passed: false, detail: 'EMFILE', failure: 'unasked' };

const host = (nth: number) => ({
  address: `10.0.0.1${nth}`,
  names: [`app${nth}/app`],
  doors: [DOOR],
  daemons: [DAEMON],
});

/** Three other hosts; what they answer is up to the case, by default they do at once. */
function scene(t: Test, answer: (target: ProbeTarget) => ProbeResult | undefined, clock = systemClock) {
  const asked: string[] = [];
  const turns: string[] = [];
  const last = { watched: [host(2), host(3), host(4)] };
  const silence: Silence = new Silence('test', {
    clock,
    ask: async (target, timeoutMs) => {
      asked.push(`${target.address}:${target.port}`);
      const result = answer(target);
      if (result !== undefined) return result;
      await new Promise((resolve) => setTimeout(resolve, timeoutMs));
      return { passed: false, detail: 'no answer', failure: 'silent' };
    },
    node: () => ({ last, turn: (reason) => turns.push(reason) }),
  });
  t.teardown(() => silence.close());
  const of = (nth: number): string[] => asked.filter((each) => each.startsWith(`10.0.0.1${nth}:`));
  return { silence, asked, turns, last, of };
}

const isOf = (nth: number, { address }: ProbeTarget): boolean => address === `10.0.0.1${nth}`;

t.test(
  'nobody is asked until HAProxy reports a host, and then all are, that one several times',
  async (t) => {
    let answers = false;
    const { silence, asked, turns, of } = scene(t, (target) =>
      isOf(2, target) && !answers ? undefined : ANSWERS,
    );
    silence.unanswered('app9/app');
    await new Promise((resolve) => setTimeout(resolve, 50));
    t.same(asked, [], 'not for one that is not watched');
    silence.unanswered('app2/app');
    await until(() => turns.length > 0);
    t.same(turns, ['no answer from app2/app']);
    t.same(
      of(2).slice(0, 5),
      ['8443', '8443', '4101', '8443', '4101'].map((port) => `10.0.0.12:${port}`),
    );
    t.same([of(3).slice(0, 1), of(4).slice(0, 1)], [['10.0.0.13:8443'], ['10.0.0.14:8443']]);
    t.same(silence.found, { asked: ['10.0.0.12', '10.0.0.13', '10.0.0.14'], silent: ['10.0.0.12'] });
    answers = true;
    await until(() => turns.length > 1, { what: 'it is asked again without a report' });
    t.equal(turns[1], 'no watched host is silent');
    t.same(silence.found.silent, []);
    const before = asked.length;
    await new Promise((resolve) => setTimeout(resolve, 700));
    t.equal(asked.length, before, 'and then no more');
  },
);

t.test('what is no silence', async (t) => {
  for (const [what, answer] of [
    ['a refusal', () => REFUSES],
    ['a daemon that answers behind a full door', ({ port }) => (port === DAEMON ? REFUSES : undefined)],
  ] as [string, (target: ProbeTarget) => ProbeResult | undefined][]) {
    const { silence, asked, turns } = scene(t, (target) => (isOf(2, target) ? answer(target) : ANSWERS));
    silence.unanswered('app2/app');
    await until(() => silence.found.asked.length > 0, { what });
    t.ok(asked.length >= 3);
    t.same(silence.found.silent, [], what);
    t.same(turns, [], what);
  }
});

t.test('no route to a host is no answer of that host', async (t) => {
  const { silence, turns } = scene(t, (target) => (isOf(2, target) ? NO_ROUTE : ANSWERS));
  silence.unanswered('app2/app');
  await until(() => turns.length > 0);
  t.same(turns, ['no answer from app2/app']);
});

t.test('a daemon that was held up, or could not ask, concludes nothing', async (t) => {
  let lostMs = 0;
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + lostMs };
  let unasked = false;
  const { silence, asked, turns } = scene(
    t,
    (target) => {
      if (!isOf(2, target)) return ANSWERS;
      if (unasked && target.port === DAEMON) return UNASKED;
      // As after a second in which this process was stopped.
      if (!unasked) lostMs += 1000;
      return undefined;
    },
    clock,
  );
  silence.unanswered('app2/app');
  const rounds = () => asked.filter((each) => each === '10.0.0.13:8443').length;
  await until(() => rounds() >= 3, { what: 'it asks again' });
  t.same(turns, []);
  unasked = true;
  const before = rounds();
  await until(() => rounds() >= before + 3);
  t.same(turns, []);
  t.same(silence.found.silent, []);
});

t.test('an answer counts also while the daemon is held up', async (t) => {
  let lostMs = 0;
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + lostMs };
  let back = false;
  const { silence, turns } = scene(
    t,
    (target) => {
      if (isOf(2, target)) return back ? ANSWERS : undefined;
      if (!back || !isOf(3, target)) return ANSWERS;
      lostMs += 1000;
      return undefined;
    },
    clock,
  );
  silence.unanswered('app2/app');
  await until(() => turns.length > 0);
  back = true;
  await until(() => turns.length > 1);
  t.same(turns, ['no answer from app2/app', 'no watched host is silent'], 'and the other one is not judged');
});

t.test('a report during a round is followed by one more round', async (t) => {
  let fell = false;
  const { silence, turns } = scene(t, (target) => {
    // The last one that is asked: the other has answered by then, and falls silent after that.
    if (isOf(4, target) && !fell) {
      fell = true;
      silence.unanswered('app3/app');
      return ANSWERS;
    }
    return isOf(3, target) && fell ? undefined : ANSWERS;
  });
  silence.unanswered('app2/app');
  await until(() => turns.length > 0);
  t.equal(turns[0], 'no answer from app3/app');
});

t.test('one that is watched no more is silent no more', async (t) => {
  const { silence, turns, last } = scene(t, (target) => {
    // During a round, whose result it is still in.
    if (isOf(2, target) && turns.length > 0) last.watched = [host(3), host(4)];
    return isOf(2, target) ? undefined : ANSWERS;
  });
  silence.unanswered('app2/app');
  await until(() => turns.length > 0);
  await until(() => last.watched.length === 2);
  t.same(silence.found, { asked: ['10.0.0.13', '10.0.0.14'], silent: [] });
  await until(() => turns.length > 1);
  last.watched = [host(2), host(3), host(4)];
  t.same(silence.found.silent, [], 'nor when it is watched again, e.g. after its return');
});

/** Listens with a queue of two, says its port, and accepts nothing once it is stopped. */
const DEAF = `const s = require('node:net').createServer();
s.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(s.address().port));`;

t.test('a door whose queue is full hides no living host', async (t) => {
  const program = spawnWithUs(process.execPath, ['-e', DEAF], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => program.kill('SIGKILL'));
  const port = Number(await new Promise((resolve) => program.stdout?.once('data', resolve)));
  program.kill('SIGSTOP');
  // Until the kernel drops what comes next, as it does at a host that is flooded.
  const opens = () =>
    new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
      t.teardown(() => socket.destroy());
      setTimeout(() => resolve(false), 300);
    });
  await until(async () => !(await opens()) && !(await opens()), { what: 'a full queue' });
  const living = createServer();
  await new Promise<void>((resolve) => living.listen(0, '127.0.0.1', resolve));
  t.teardown(() => living.close());
  const daemon = (living.address() as AddressInfo).port;
  for (const [daemons, silent] of [
    [[daemon], []],
    [[port], ['127.0.0.1']],
  ] as const) {
    const last = { watched: [{ address: '127.0.0.1', names: ['app2/app'], doors: [port], daemons }] };
    const silence = new Silence('test', {
      clock: systemClock,
      node: () => ({ last, turn: () => undefined }),
    });
    t.teardown(() => silence.close());
    silence.unanswered('app2/app');
    await until(() => silence.found.asked.length > 0);
    t.same(silence.found.silent, silent, `a daemon at ${daemons.join()}`);
  }
});
