import t from 'tap';
import type { MemberRow, UpgradeAnswer } from '../../../src/daemon/control/api.ts';
import {
  type Rollout,
  STOPS,
  type StopCode,
  formatWord,
  merged,
  parseWord,
} from '../../../src/daemon/rollout/policy.ts';
import { type RolloutNews, type RolloutOptions, RolloutRunner } from '../../../src/daemon/rollout/runner.ts';
import type { TurnState } from '../../../src/daemon/rollout/turn.ts';

const OPTIONS: RolloutOptions = {
  settleMs: 3000,
  announceMs: 2000,
  beginMs: 30_000,
  verifyMs: 120_000,
  returnMs: 10_000,
  idleMs: 600_000,
  workMs: 1_200_000,
};
/** In order of admission; both1 carries both roles. */
const NAMES = ['app1/app', 'app2/app', 'both1/app', 'both1/db'] as const;
type Name = (typeof NAMES)[number];
const STEP_MS = 1000;

/** A cluster whose records reach everybody one second later, on a clock that the test moves. */
class Cluster {
  nowMs = 1_700_000_000_000;
  readonly rows = new Map<Name, MemberRow>();
  readonly runners = new Map<Name, RolloutRunner>();
  readonly saved = new Map<Name, unknown>();
  readonly news: { readonly name: Name; readonly news: RolloutNews }[] = [];
  /** What root's unit says on each host, and how often it was asked. */
  readonly turns = new Map<string, TurnState>();
  readonly asked: string[] = [];
  /** Members that do not see the others' rows as they are. */
  readonly hears = new Map<Name, (row: MemberRow) => MemberRow>();
  /** Called when a host's turn is asked for; the default upgrade takes no time and works. */
  upgrade: (host: string) => TurnState = () => 'success';
  settled = true;

  constructor() {
    for (const name of NAMES) {
      this.rows.set(name, row(name));
      this.begin(name);
    }
  }

  /** A process starts, with what its predecessor has saved. */
  begin(name: Name): void {
    const host = name.replace(/\/.*/, '');
    const runner = new RolloutRunner(name, OPTIONS, {
      clock: { monotonicMs: () => this.nowMs - 1_600_000_000_000, wallMs: () => this.nowMs },
      turn: {
        ask: async () => {
          this.asked.push(host);
          this.turns.set(host, this.upgrade(host));
        },
        withdraw: async () => void this.turns.set(host, 'none'),
        state: async () => this.turns.get(host) ?? 'none',
      },
      scene: () => ({
        rows: [...this.rows.values()].map(this.hears.get(name) ?? ((each) => each)),
        admission: NAMES,
        synced: true,
        held: [],
        settled: this.settled,
      }),
      save: (word) => void this.saved.set(name, JSON.parse(JSON.stringify(word))),
      tell: (news) => void this.news.push({ name, news }),
    });
    runner.load(this.saved.get(name));
    this.runners.set(name, runner);
  }

  change(name: Name, change: Partial<MemberRow>): void {
    this.rows.set(name, { ...this.rows.get(name)!, ...change });
  }

  /** Dead processes neither look nor speak. */
  async pass(seconds: number): Promise<void> {
    for (let second = 0; second < seconds; second += 1) {
      this.nowMs += STEP_MS;
      const living = NAMES.filter((name) => this.rows.get(name)?.state === 'alive');
      for (const name of living) await this.runners.get(name)?.look();
      for (const name of NAMES) {
        const tag = this.runners.get(name)?.tag;
        const { stateForMs } = this.rows.get(name)!;
        this.change(name, { stateForMs: stateForMs + STEP_MS });
        if (living.includes(name) && tag !== undefined) this.change(name, { tags: { rollout: tag } });
      }
    }
  }

  answer(name: Name = 'app1/app'): UpgradeAnswer {
    return this.runners.get(name)!.answer();
  }
}

function row(name: Name): MemberRow {
  return {
    name,
    role: name.endsWith('db') ? 'db' : 'app',
    peerId: name,
    address: '10.0.0.1',
    state: 'alive',
    health: 'up',
    maintenance: false,
    restarting: false,
    rotation: 'in',
    reason: 'alive and up',
    version: '0.1.0-1',
    incarnation: 1,
    services: [],
    tags: {},
    load: 0,
    stateForMs: 0,
    heardAgoMs: 0,
    certificateNotAfter: '',
    settingsDigest: '',
    authority: false,
    self: false,
  };
}

t.test(
  'hosts take their turns one after the other, the founder last, and all agree that it is finished',
  async (t) => {
    const cluster = new Cluster();
    t.equal(cluster.answer().state, 'none');
    cluster.runners.get('app2/app')?.start();
    await cluster.pass(60);
    t.same(cluster.asked, ['both1', 'app2', 'app1']);
    for (const name of NAMES) t.equal(cluster.answer(name).state, 'finished', name);
    t.same(
      cluster.answer().hosts.map(({ host, step }) => [host, step]),
      [
        ['both1', 'done'],
        ['app2', 'done'],
        ['app1', 'done'],
      ],
    );
    cluster.runners.get('app1/app')?.start();
    await cluster.pass(60);
    t.equal(cluster.asked.length, 6, 'a later rollout takes everybody again');
  },
);

t.test('a host begins only when the one before it is done, however long dnf takes there', async (t) => {
  const cluster = new Cluster();
  cluster.upgrade = () => 'working';
  cluster.runners.get('app1/app')?.start();
  await cluster.pass(600);
  t.same(cluster.asked, ['both1']);
  t.match(cluster.answer(), { state: 'running', why: 'both1 is upgrading' });
  cluster.turns.set('both1', 'success');
  await cluster.pass(20);
  t.same(cluster.asked, ['both1', 'app2']);
});

t.test('no host begins while anybody is not well, and the rollout is refused at the asker', async (t) => {
  const unwell: Partial<MemberRow>[] = [
    { state: 'suspect' },
    { state: 'dead' },
    { state: 'leaving' },
    { health: 'down' },
    { maintenance: true },
    { restarting: true },
    { rotation: 'unwatched' },
  ];
  for (const change of unwell) {
    const cluster = new Cluster();
    cluster.change('both1/db', change);
    t.throws(
      () => cluster.runners.get('app1/app')?.start(),
      { code: 'guard-rollout' },
      JSON.stringify(change),
    );
    cluster.change('both1/db', row('both1/db'));
    cluster.runners.get('app1/app')?.start();
    cluster.change('both1/db', change);
    await cluster.pass(120);
    t.same(cluster.asked, [], JSON.stringify(change));
    cluster.change('both1/db', row('both1/db'));
    await cluster.pass(60);
    t.equal(cluster.answer().state, 'finished');
  }
});

t.test('a daemon that does not come back stops it for all, and only the operator resumes it', async (t) => {
  const cluster = new Cluster();
  cluster.upgrade = () => {
    cluster.change('both1/db', { state: 'dead', stateForMs: 0 });
    return 'success';
  };
  cluster.runners.get('app1/app')?.start();
  await cluster.pass(60);
  t.same(cluster.asked, ['both1'], 'the others are untouched');
  for (const name of ['app1/app', 'app2/app', 'both1/app'] as const) {
    t.match(cluster.answer(name), { state: 'stopped', why: /a daemon on both1 did not come back/ });
    t.match(cluster.runners.get(name)?.warnings, [
      { code: 'rollout-stopped', message: /^a rollout is stopped: /, next: /^on both1: journalctl/ },
    ]);
    t.match(cluster.news.filter((each) => each.name === name).at(-1)?.news.stopped, { code: 'not-back' });
  }
  // Everybody reboots, and the lost one is mended.
  cluster.upgrade = () => 'success';
  cluster.change('both1/db', row('both1/db'));
  for (const name of NAMES) cluster.begin(name);
  await cluster.pass(1000);
  t.equal(cluster.answer().state, 'stopped');
  t.throws(() => cluster.runners.get('app2/app')?.start(), { code: 'guard-rollout-stopped' });
  t.same(cluster.asked, ['both1']);
  cluster.runners.get('app2/app')?.resume();
  await cluster.pass(60);
  t.same(cluster.asked, ['both1', 'both1', 'app2', 'app1']);
  t.equal(cluster.answer().state, 'finished');
});

t.test('on a host of both roles the one that stays acts when the other has left', async (t) => {
  const cluster = new Cluster();
  cluster.change('both1/app', { state: 'left' });
  cluster.runners.get('app1/app')?.start();
  await cluster.pass(60);
  t.same(cluster.asked, ['both1', 'app2', 'app1']);
  t.equal(cluster.answer('both1/db').state, 'finished');
});

t.test('a restarted daemon continues the rollout of its host', async (t) => {
  const cluster = new Cluster();
  cluster.upgrade = () => 'working';
  cluster.runners.get('app1/app')?.start();
  await cluster.pass(10);
  for (const name of ['both1/app', 'both1/db'] as const) cluster.begin(name);
  await cluster.pass(30);
  cluster.turns.set('both1', 'success');
  await cluster.pass(3);
  t.equal(cluster.answer().hosts[0]?.step, 'working', 'not done before it was well for a while');
  await cluster.pass(5);
  t.equal(cluster.answer().hosts[0]?.step, 'done');
});

t.test('each way to fail on a host stops the rollout with its own reason', async (t) => {
  const ways: readonly (readonly [StopCode, (cluster: Cluster) => void])[] = [
    ['package', (cluster) => (cluster.upgrade = () => 'failed')],
    ['not-begun', (cluster) => (cluster.upgrade = () => 'asked')],
    ['interrupted', (cluster) => (cluster.upgrade = () => 'none')],
    [
      'not-healthy',
      (cluster) =>
        (cluster.upgrade = () => {
          cluster.change('both1/app', { health: 'down' });
          return 'success';
        }),
    ],
  ];
  for (const [code, arrange] of ways) {
    const cluster = new Cluster();
    arrange(cluster);
    cluster.runners.get('app1/app')?.start();
    await cluster.pass(200);
    t.same(cluster.asked, ['both1'], code);
    t.equal(cluster.answer().why, STOPS[code].why.replaceAll('HOST', 'both1'), code);
    t.equal(cluster.answer().hosts[0]?.step, 'failed', code);
  }
});

t.test('a cluster that stays unwell, and a host that stays at work, end as no progress', async (t) => {
  const unwell = new Cluster();
  unwell.runners.get('app1/app')?.start();
  unwell.change('app2/app', { health: 'down' });
  await unwell.pass(590);
  t.equal(unwell.answer().state, 'running');
  await unwell.pass(20);
  t.match(unwell.answer(), { state: 'stopped', why: STOPS['no-progress'].why });
  const endless = new Cluster();
  endless.upgrade = () => 'working';
  endless.runners.get('app1/app')?.start();
  await endless.pass(1250);
  t.match(endless.answer(), { state: 'stopped', why: STOPS['no-progress'].why });
});

t.test('the operator stops it from any node: the host that upgrades finishes, no other starts', async (t) => {
  const cluster = new Cluster();
  cluster.upgrade = () => 'working';
  cluster.runners.get('app1/app')?.start();
  await cluster.pass(10);
  cluster.runners.get('app2/app')?.stop();
  cluster.turns.set('both1', 'success');
  await cluster.pass(100);
  t.same(cluster.asked, ['both1']);
  for (const name of NAMES) t.match(cluster.answer(name), { state: 'stopped', why: STOPS.operator.why });
  t.throws(() => cluster.runners.get('app1/app')?.stop(), { code: 'rollout-not-running' });
});

t.test(
  'two hosts that both take their turn learn of each other before either changes anything',
  async (t) => {
    const cluster = new Cluster();
    // app2 has not heard that both1 exists as more than a host that is done.
    cluster.hears.set('app2/app', (each) =>
      each.name.startsWith('both1') && cluster.nowMs < 1_700_000_006_000
        ? {
            ...each,
            tags: { rollout: cluster.runners.get('app1/app')?.tag?.replace('waiting', 'done') ?? '' },
          }
        : each,
    );
    cluster.runners.get('app1/app')?.start();
    let most = 0;
    for (let second = 0; second < 60; second += 1) {
      await cluster.pass(1);
      const busy = [...cluster.turns.keys()].filter((host) => {
        const step = cluster.answer().hosts.find((each) => each.host === host)?.step;
        return step === 'working';
      });
      most = Math.max(most, busy.length);
    }
    t.equal(most, 1);
    t.same(cluster.asked, ['both1', 'app2', 'app1']);
  },
);

t.test('a node whose clock is far ahead starts nothing', async (t) => {
  const cluster = new Cluster();
  cluster.change('app2/app', { tags: { rollout: '99999999999 running waiting' } });
  cluster.runners.delete('app2/app');
  await cluster.pass(30);
  t.equal(cluster.answer().state, 'none');
  t.same(cluster.asked, []);
});

t.test('the tags of a rollout are read as they were written, and anything else is ignored', async (t) => {
  const words = [
    { id: 1_700_000_000, state: 'running', step: 'working', code: undefined },
    { id: 1_700_000_000, state: 'stopped', step: 'failed', code: 'package' },
  ] as const;
  for (const word of words) t.same(parseWord(formatWord(word)), word);
  for (const code of Object.keys(STOPS) as StopCode[])
    t.ok(
      formatWord({ id: 99_999_999_999, state: 'finished', step: 'waiting', code }).length <= 64,
      'fits into a tag',
    );
  t.match(parseWord('5 stopped done of-a-later-version'), { state: 'stopped', code: 'operator' });
  for (const text of [
    '',
    'x',
    '5 running',
    '5 running done http://x',
    '5 running done dnf install',
    '-1 running done',
    undefined,
  ])
    t.equal(parseWord(text), undefined, String(text));
});

t.test('all nodes reach the same rollout, in whatever order the tags of two nodes arrive', async (t) => {
  const all: Rollout[] = [1, 2].flatMap((id) => [
    { id, state: 'running' as const, code: undefined },
    { id, state: 'finished' as const, code: undefined },
    ...(['operator', 'package'] as const).map((code) => ({ id, state: 'stopped' as const, code })),
  ]);
  const same = (left: unknown, right: unknown): boolean => JSON.stringify(left) === JSON.stringify(right);
  const wrong = all.flatMap((one) =>
    all.flatMap((other) => {
      if (!same(merged(one, other), merged(other, one))) return [{ one, other }];
      return all
        .filter((third) => !same(merged(merged(one, other), third), merged(one, merged(other, third))))
        .map((third) => ({ one, other, third }));
    }),
  );
  t.same(wrong, []);
  for (const one of all) t.same(merged(one, one), one);
  t.match(
    merged({ id: 1, state: 'stopped', code: 'package' }, { id: 1, state: 'running', code: undefined }),
    { state: 'stopped' },
  );
});
