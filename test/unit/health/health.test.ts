import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Checks, type Check, type CheckVerdict } from '../../../src/daemon/health/health.ts';
import { isLocal, isOn, probe } from '../../../src/daemon/health/probe.ts';
import { systemClock } from '../../../src/daemon/clock.ts';
import { until } from '../../support/until.ts';

/** A minute for an answer: what fails here fails for what it says. */
const options = { rise: 1, fall: 1, returnDelayMs: 0, intervalMs: 5, fastIntervalMs: 5, timeoutMs: 60_000 };

const answering = async (status: () => number) => {
  const server = createServer((_request, response) => response.writeHead(status()).end());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, port: (server.address() as AddressInfo).port };
};

t.test('a real server is up, then down, then up again, and each change is reported once', async (t) => {
  let status = 200;
  const { server, port } = await answering(() => status);
  const told: string[] = [];
  const checks = new Checks(options, {
    clock: systemClock,
    changed: (verdict, was) => told.push(`${was}→${verdict.health}`),
  });
  t.teardown(() => {
    checks.close();
    server.close();
  });
  checks.set([
    { name: 'web', required: true, target: { kind: 'http', address: '127.0.0.1', port, path: '/' } },
  ]);
  t.equal(checks.node, 'down', 'down until shown to work');
  await until(() => checks.node === 'up');
  status = 500;
  await until(() => checks.node === 'down');
  t.match(checks.verdicts[0]?.detail, /^500/);
  status = 204;
  await until(() => checks.node === 'up');
  t.same(told, ['down→up', 'up→down', 'down→up']);
});

t.test('a check that passes again during its delay shows for how long it still counts as down', async (t) => {
  let nowMs = 0;
  let passed = true;
  const checks = new Checks(
    { ...options, rise: 2, fall: 2, returnDelayMs: 5000 },
    {
      clock: { ...systemClock, monotonicMs: () => nowMs },
      ask: async () => ({ passed, detail: passed ? '200 in 2 ms' : 'connection refused' }),
      changed: () => undefined,
    },
  );
  t.teardown(() => checks.close());
  checks.set([{ name: 'haproxy', required: true, target: { kind: 'tcp', address: '127.0.0.1', port: 1 } }]);
  const detail = () => checks.verdicts[0]?.detail;
  await until(() => checks.node === 'up');
  t.equal(detail(), '200 in 2 ms', 'the first rise is not damped');
  passed = false;
  await until(() => checks.node === 'down');
  t.equal(detail(), 'connection refused');
  passed = true;
  await until(() => detail() === '200 in 2 ms; it passes again, and counts as up in 5 s if it keeps passing');
  nowMs = 3900;
  await until(() => detail() === '200 in 2 ms; it passes again, and counts as up in 2 s if it keeps passing');
  t.equal(checks.node, 'down');
  nowMs = 5000;
  await until(() => checks.node === 'up');
  t.equal(detail(), '200 in 2 ms');
});

t.test('a check that is not required leaves the node up', async (t) => {
  const checks = new Checks(options, {
    clock: systemClock,
    ask: async (target) => ({ passed: target.port === 1, detail: '' }),
    changed: () => undefined,
  });
  t.teardown(() => checks.close());
  const check = (name: string, required: boolean, port: number): Check => ({
    name,
    required,
    target: { kind: 'tcp', address: '127.0.0.1', port },
  });
  checks.set([check('a', true, 1), check('b', false, 2)]);
  await until(() => checks.node === 'up');
  checks.set([check('a', true, 1), check('b', true, 2)]);
  t.equal(checks.node, 'down');
  t.equal(
    checks.verdicts.find((each) => each.name === 'a')?.health,
    'up',
    'an unchanged check keeps its verdict',
  );
});

t.test('refused connections, silence and redirects have different results', async (t) => {
  const silent = createServer(() => undefined);
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const { server, port } = await answering(() => 301);
  const silentPort = (silent.address() as AddressInfo).port;
  t.same(await probe({ kind: 'http', address: '127.0.0.1', port: silentPort, path: '/' }, 50), {
    passed: false,
    detail: 'no answer within 50 ms',
    failure: 'silent',
  });
  t.match(await probe({ kind: 'http', address: '127.0.0.1', port, path: '/' }, 60_000), {
    passed: true,
  });
  t.match(await probe({ kind: 'tcp', address: '127.0.0.1', port }, 60_000), { passed: true });
  silent.closeAllConnections();
  silent.close();
  server.close();
  t.match(await probe({ kind: 'tcp', address: '127.0.0.1', port: silentPort }, 60_000), {
    passed: false,
    detail: 'connection refused',
  });
});

t.test(
  'the first verdicts can be waited for: down when it fell, up when it rose, and nobody waits for ever',
  async (t) => {
    const asked = Promise.withResolvers<void>();
    const answers = new Map([
      [1, [false, true, true]],
      [2, [false, false]],
    ]);
    const checks = new Checks(
      { ...options, rise: 2, fall: 2, intervalMs: 60_000 },
      {
        clock: systemClock,
        ask: async (target) => {
          if (target.port === 3) await asked.promise;
          return { passed: answers.get(target.port)?.shift() === true, detail: '' };
        },
        changed: () => undefined,
      },
    );
    t.teardown(() => checks.close());
    const check = (port: number): Check => ({
      name: `p${port}`,
      required: true,
      target: { kind: 'tcp', address: '127.0.0.1', port },
    });
    checks.set([check(1), check(2)]);
    await checks.decided(10_000);
    t.same(
      checks.verdicts.map((each) => [each.name, each.health]),
      [
        ['p1', 'up'],
        ['p2', 'down'],
      ],
      'the first failure of p1, at a busy moment, was not believed',
    );
    checks.set([check(1), check(2), check(3)]);
    const startMs = performance.now();
    await checks.decided(50);
    t.ok(performance.now() - startMs >= 45, 'a check that does not answer is waited for until the bound');
    asked.resolve();
  },
);

t.test(
  'an address that is on another device is on this host, and not on the one that is asked for',
  async (t) => {
    t.ok(isLocal('127.0.0.1'));
    t.ok(isOn(['eth0', 'lo'], '127.0.0.1'));
    t.notOk(isOn(['eth0', 'eth0:bm'], '127.0.0.1'));
    t.notOk(isOn(['lo'], '192.0.2.1'));
  },
);

t.test(
  'new settings count from the next question on, which comes at once, and no verdict is lost',
  async (t) => {
    const asked: number[] = [];
    let passed = true;
    const checks = new Checks(
      { ...options, intervalMs: 3_600_000, fastIntervalMs: 5, timeoutMs: 1 },
      {
        clock: systemClock,
        ask: async (_target, timeoutMs) => {
          asked.push(timeoutMs);
          return { passed, detail: '' };
        },
        changed: () => undefined,
      },
    );
    t.teardown(() => checks.close());
    checks.set([{ name: 'a', required: true, target: { kind: 'tcp', address: '127.0.0.1', port: 1 } }]);
    await until(() => checks.node === 'up');
    const before = asked.length;
    checks.reconfigure({ ...options, intervalMs: 3_600_000, timeoutMs: 2, fall: 3 });
    t.equal(checks.node, 'up', 'the verdict stays');
    await until(() => asked.length > before, { what: 'it is asked although the hour is not over' });
    t.equal(asked.at(-1), 2, 'its time is the new one');
    passed = false;
    checks.reconfigure({ ...options, intervalMs: 3_600_000, timeoutMs: 3, fall: 3 });
    await until(() => checks.node === 'down');
    t.equal(checks.verdicts[0]?.streak, 3, 'and so is `fall`');
    const { length } = asked;
    checks.reconfigure({ ...options, intervalMs: 5, timeoutMs: 4 });
    await until(() => asked.length > length + 3 && asked.at(-1) === 4);
  },
);

t.test(
  'what a node depends on changes without asking again, and a patient check rides out one failure more',
  async (t) => {
    let failures = 0;
    const checks = new Checks(
      { ...options, fall: 2 },
      {
        clock: systemClock,
        ask: async () => {
          failures -= 1;
          return { passed: failures < 0, detail: '' };
        },
        changed: () => undefined,
      },
    );
    t.teardown(() => checks.close());
    const target = { kind: 'tcp', address: '127.0.0.1', port: 1 } as const;
    const told = new Set<string>();
    checks.set([{ name: 'a', required: false, target, patience: 1 }]);
    await until(() => checks.verdicts[0]?.health === 'up');
    checks.set([{ name: 'a', required: true, target, patience: 1 }]);
    t.equal(checks.node, 'up', 'the verdict of before counts');
    failures = 2;
    await until(() => {
      told.add(checks.node);
      return failures < -5;
    });
    t.same([...told], ['up'], 'two failures are ridden out');
    failures = Number.POSITIVE_INFINITY;
    await until(() => checks.node === 'down');
  },
);

t.test(
  'a check that is brought forward is asked at once, and a running one is not asked twice',
  async (t) => {
    let asked = 0;
    let passed = true;
    const answers = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const checks = new Checks(
      { ...options, fall: 2, intervalMs: 3_600_000, fastIntervalMs: 3_600_000 },
      {
        clock: systemClock,
        ask: async () => {
          await answers[asked++]?.promise;
          return { passed, detail: '200 in 2 ms' };
        },
        changed: () => undefined,
      },
    );
    t.teardown(() => checks.close());
    checks.set([{ name: 'web', required: true, target: { kind: 'tcp', address: '127.0.0.1', port: 1 } }]);
    checks.failedElsewhere('web', 'failed');
    t.equal(asked, 1, 'its first question runs');
    answers[0]?.resolve();
    await until(() => checks.node === 'up');
    await new Promise(setImmediate);
    checks.failedElsewhere('another', 'failed');
    t.equal(asked, 1);
    checks.failedElsewhere('web', 'failed');
    checks.failedElsewhere('web', 'failed');
    t.equal(asked, 2, 'an hour before its time');
    passed = false;
    answers[1]?.resolve();
    await until(() => checks.verdicts[0]?.lastPassed === false);
    checks.failedElsewhere('web', 'failed');
    t.equal(asked, 2, 'the second failure is not brought forward: it comes after the fast interval');
  },
);

t.test('a check that a reload changes keeps its verdict, and runs at once and in its own time', async (t) => {
  const asked: [string, number][] = [];
  let passed = true;
  const checks = new Checks(
    { ...options, intervalMs: 3_600_000, fall: 2 },
    {
      clock: systemClock,
      ask: async (target, timeoutMs) => {
        asked.push([target.kind === 'http' ? target.path : 'tcp', timeoutMs]);
        return { passed, detail: '' };
      },
      changed: () => undefined,
    },
  );
  t.teardown(() => checks.close());
  const at = { address: '127.0.0.1', port: 1 };
  const of = (path: string, timing?: Check['timing'], port = 1): Check => ({
    ...{ name: 'shop', required: true },
    target: { kind: 'http', ...at, port, path },
    ...(timing !== undefined && { timing }),
  });
  checks.set([of('/a')]);
  await until(() => checks.node === 'up');
  checks.set([of('/b', { timeoutMs: 7, fall: undefined })]);
  t.equal(checks.node, 'up');
  await until(() => asked.length === 2);
  t.same(asked.at(-1), ['/b', 7]);
  passed = false;
  checks.set([of('/c', { fall: 1 })]);
  t.equal(checks.node, 'up', 'until the new question was answered');
  await until(() => checks.node === 'down', { what: 'one failure is enough' });
  t.same(asked.length, 3);
  passed = true;
  checks.set([of('/c', { intervalMs: 5 })]);
  await until(() => asked.length > 6, { what: 'no hour between two' });
  checks.set([{ name: 'shop', required: true, target: { kind: 'tcp', ...at } }]);
  t.equal(checks.node, 'up', 'asked by connection alone from now on');
  checks.set([of('/c', {}, 2)]);
  t.equal(checks.node, 'down', 'another port is another program');
});

t.test('the fast interval is never longer than the interval of the service', async (t) => {
  let passed = true;
  const checks = new Checks(
    { ...options, fall: 2, intervalMs: 3_600_000, fastIntervalMs: 3_600_000 },
    { clock: systemClock, ask: async () => ({ passed, detail: '' }), changed: () => undefined },
  );
  t.teardown(() => checks.close());
  const target = { kind: 'tcp', address: '127.0.0.1', port: 1 } as const;
  checks.set([{ name: 'shop', required: true, target, timing: { intervalMs: 5 } }]);
  await until(() => checks.node === 'up');
  passed = false;
  await until(() => checks.node === 'down', { what: 'the second failure is not an hour later' });
});

t.test('a program that never answers is down after one timeout, whatever `fall` is', async (t) => {
  for (const fall of [1, 2, 5]) {
    const began: number[] = [];
    const target = { kind: 'tcp', address: '127.0.0.1', port: 1 } as const;
    let hangs = false;
    const told: CheckVerdict[] = [];
    const checks = new Checks(
      { ...options, fall, intervalMs: 3_600_000, fastIntervalMs: 3_600_000, timeoutMs: 400 },
      {
        clock: systemClock,
        ask: async (_target, timeoutMs) => {
          if (!hangs) return { passed: true, detail: '' };
          began.push(timeoutMs);
          await pause(timeoutMs);
          return { passed: false, detail: '', failure: 'silent' };
        },
        changed: (verdict) => told.push(verdict),
      },
    );
    t.teardown(() => checks.close());
    checks.set([{ name: 'shop', required: true, spread: true, target }]);
    await until(() => checks.node === 'up');
    hangs = true;
    await until(() => {
      checks.failedElsewhere('shop', 'failed');
      return began.length > 0;
    });
    await until(() => checks.node === 'down', { what: 'an hour before a second turn' });
    const left = Array.from({ length: fall }, (_, nth) => 400 - (nth * 400) / fall);
    t.same(began, left, 'each failure is a question of its own, and all end together');
    t.match(told.at(-1), { failure: 'silent', health: 'down' });
  }
});

t.test('one answer among the questions of a slow program is enough', async (t) => {
  let asked = 0;
  let slow = false;
  const checks = new Checks(
    { ...options, fall: 4, intervalMs: 3_600_000, fastIntervalMs: 3_600_000, timeoutMs: 400 },
    {
      clock: systemClock,
      ask: async (_target, timeoutMs) => {
        asked += 1;
        if (!slow) return { passed: true, detail: '200 in 1 ms' };
        const mine = asked;
        await pause(mine === 3 ? 10 : timeoutMs);
        return mine === 3
          ? { passed: true, detail: '200 in 10 ms' }
          : { passed: false, detail: '', failure: 'silent' };
      },
      changed: () => undefined,
    },
  );
  t.teardown(() => checks.close());
  const target = { kind: 'tcp', address: '127.0.0.1', port: 1 } as const;
  checks.set([{ name: 'shop', required: true, spread: true, target }]);
  await until(() => checks.node === 'up');
  slow = true;
  await until(() => {
    checks.failedElsewhere('shop', 'failed');
    return asked > 1;
  });
  await until(() => checks.verdicts[0]?.detail === '200 in 10 ms');
  t.equal(checks.node, 'up');
  await pause(500);
  t.equal(asked, 3, 'the fourth was not needed');
});

/** One check whose first question passes, and whose next ones never end. */
async function neverEnding(t: Test, timeoutMs: number) {
  let asked = 0;
  const checks = new Checks(
    { ...options, fall: 2, intervalMs: 3_600_000, fastIntervalMs: 3_600_000, timeoutMs },
    {
      clock: systemClock,
      ask: async () => {
        asked += 1;
        return asked === 1 ? { passed: true, detail: '' } : new Promise<never>(() => undefined);
      },
      changed: () => undefined,
    },
  );
  t.teardown(() => checks.close());
  const target = { kind: 'tcp', address: '127.0.0.1', port: 1 } as const;
  checks.set([{ name: 'shop', required: true, spread: true, target }]);
  await until(() => checks.node === 'up');
  await until(
    () => {
      checks.failedElsewhere('shop', 'silent');
      return asked === 2;
    },
    { what: 'it is asked an hour before its time' },
  );
  return checks;
}

t.test(
  'what HAProxy asked in vain as well is not waited for, but not before a good part of the time',
  async (t) => {
    const early = await neverEnding(t, 3_600_000);
    early.failedElsewhere('another', 'silent');
    early.failedElsewhere('shop', 'silent');
    await pause(50);
    t.equal(early.node, 'up', 'it has waited for a moment only');
    const checks = await neverEnding(t, 1000);
    checks.failedElsewhere('shop', 'failed');
    await until(
      () => {
        checks.failedElsewhere('shop', 'silent');
        return checks.node === 'down';
      },
      { everyMs: 20 },
    );
    t.match(checks.verdicts[0]?.detail, /^no answer within \d+ ms, and none to HAProxy$/);
  },
);

t.test('a process that was busy itself takes nobody for silent', async (t) => {
  const checks = await neverEnding(t, 100);
  const endMs = performance.now() + 600;
  while (performance.now() < endMs);
  for (let turn = 0; turn < 5; turn += 1) {
    checks.failedElsewhere('shop', 'silent');
    await pause(20);
  }
  t.equal(checks.node, 'up');
  const told: CheckVerdict[] = [];
  let blocks = false;
  const others = new Checks(
    { ...options, fall: 2, intervalMs: 3_600_000, fastIntervalMs: 3_600_000, timeoutMs: 100 },
    {
      clock: systemClock,
      ask: async (_target, timeoutMs) => {
        if (!blocks) return { passed: true, detail: '' };
        const freeAtMs = performance.now() + 500;
        while (performance.now() < freeAtMs);
        await pause(timeoutMs);
        return { passed: false, detail: '', failure: 'silent' };
      },
      changed: (verdict) => told.push(verdict),
    },
  );
  t.teardown(() => others.close());
  const target = { kind: 'tcp', address: '127.0.0.1', port: 1 } as const;
  others.set([{ name: 'shop', required: true, spread: true, target }]);
  await until(() => others.node === 'up');
  blocks = true;
  others.failedElsewhere('shop', 'failed');
  await until(() => others.verdicts[0]?.lastPassed === false);
  t.equal(others.node, 'up', 'one failure of two');
});

t.test('what changes during a question is asked for after it', async (t) => {
  const asked: ((passed: boolean) => void)[] = [];
  const checks = new Checks(
    { ...options, intervalMs: 3_600_000, fastIntervalMs: 3_600_000 },
    {
      clock: systemClock,
      ask: () => new Promise((resolve) => asked.push((passed) => resolve({ passed, detail: '' }))),
      changed: () => undefined,
    },
  );
  t.teardown(() => checks.close());
  const target = { kind: 'tcp', address: '127.0.0.1', port: 1 } as const;
  checks.set([{ name: 'shop', required: true, target }]);
  await until(() => asked.length === 1);
  checks.reconfigure({ ...options, rise: 2, intervalMs: 3_600_000, fastIntervalMs: 3_600_000 });
  asked[0]?.(true);
  await until(() => asked.length === 2, { what: 'an hour before its time' });
});
