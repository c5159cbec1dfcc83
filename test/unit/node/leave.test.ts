import t from 'tap';
import { parseConfig } from '../../../src/daemon/config/config.ts';
import type { MemberRow, StatusAnswer } from '../../../src/daemon/control/api.ts';
import { Leave, type LeaveDependencies } from '../../../src/daemon/control/leave.ts';
import type { CouchDbStatus } from '../../../src/plugins/couchdb/plugin.ts';
import type { EffectiveView } from '../../../src/roles/effective.ts';
import { until } from '../../support/until.ts';
import { member as row } from '../cli/fake-daemon.ts';
import { member, view } from '../roles/cases.ts';
import { configOf } from './scenes.ts';

const config = parseConfig(
  '[node]\ncluster = "shop"\nhost = "app1"\n[network]\nprivate_address = "10.0.0.11"\nprivate_network = ' +
    '"10.0.0.0/24"\nprivate_device = "eth1"\n',
  'app',
  'app.toml',
);

/** What CouchDB's plugin reports, each time that it is asked. */
const reporting = (status: () => Partial<CouchDbStatus> | undefined) =>
  status as LeaveDependencies['couchdb'];

/** A node that is told to leave, and in order what came of it. */
function leaving(
  name: 'app1/app' | 'db1/db',
  changes: Partial<LeaveDependencies> = {},
  others: {
    readonly view?: EffectiveView;
    readonly rows?: MemberRow[];
    readonly config?: typeof config;
    readonly holds?: () => boolean;
  } = {},
) {
  const role = name === 'db1/db' ? 'db' : 'app';
  const second = name.replace('1', '2');
  const did: string[] = [];
  let phase: StatusAnswer['phase'] = 'running';
  let nowMs = 0;
  const leave = new Leave(
    { name, role },
    {
      // Each look at the clock finds it three seconds later.
      clock: { wallMs: () => 0, monotonicMs: () => (nowMs += 3000) },
      driver: { leave: () => did.push('word: leaving'), departed: () => did.push('word: left') },
      node: {
        config: others.config ?? config,
        get phase() {
          return phase;
        },
        last: {
          view: others.view ?? view([member(name, { self: true }), member(second)]),
          scene: {
            get holds() {
              return others.holds?.() ?? false;
            },
          },
        },
        rows: () => others.rows ?? [row({ name, self: true }), row({ name: second })],
        turn: (reason) => did.push(`turn: ${reason}`),
        operatorDid: (what) => did.push(`audit: ${what}`),
        enter: (next) => {
          phase = next;
          did.push(next);
        },
        retireCouchDb: async () => void did.push('CouchDB is retired'),
      },
      checks: { verdicts: [] },
      reconciler: { converged: () => true, status: () => [] },
      couchdb: reporting(() => undefined),
      flow: {
        traffic: async () => ({ requests: 0, summary: '1 connection, 0 open requests' }),
        endStreams: async () => ({ ended: 0 }),
      },
      local: { update: async ({ left }) => void did.push(left === true ? 'kept' : 'lost') },
      end: (code) => did.push(`ended with ${code}`),
      ...changes,
    },
  );
  return { leave, did, told: ({ message }: { message: string }) => void did.push(`told: ${message}`) };
}

const announced = ['leaving', 'audit: leave', 'word: leaving', 'turn: leave by the operator'];

t.test('a db node says that it left, and keeps it, only when its data is on the others', async (t) => {
  const phases: Partial<CouchDbStatus>[] = [
    { phase: 'draining' as CouchDbStatus['phase'], waiting: 'copies of 3 shards' },
    { phase: 'draining' as CouchDbStatus['phase'], waiting: 'copies of 3 shards' },
    { phase: 'left' },
  ];
  let asked = 0;
  const { leave, did, told } = leaving('db1/db', {
    couchdb: reporting(() => phases[Math.min(asked++, phases.length - 1)]),
  });
  t.match(await leave.run({}, told), { message: /^db1\/db has left the cluster/ });
  t.strictSame(did, [
    ...announced,
    'told: notified the other nodes: db1/db is leaving',
    'told: waiting for copies of 3 shards',
    'told: drained: 1 connection, 0 open requests',
    'told: the others have every copy; stopping CouchDB here (its data stays on the disk)',
    'CouchDB is retired',
    'word: left',
    'left',
    'kept',
  ]);
  await t.rejects(leave.run({ force: true }, told), { code: 'left' }, 'once is for good');
});

t.test(
  'a leave that cannot be finished is taken back: the daemon starts again, and has not left',
  async (t) => {
    const refused = async (
      name: 'app1/app' | 'db1/db',
      message: RegExp,
      changes: Partial<LeaveDependencies>,
    ) => {
      const { leave, did, told } = leaving(name, changes);
      await t.rejects(leave.run({}, told), {
        code: 'leave-refused',
        message,
        next: /restarts and stays a member/,
      });
      t.strictSame(did, [...announced, `told: notified the other nodes: ${name} is leaving`]);
      await until(() => did.includes('ended with 1'), { what: 'the daemon ends' });
      for (const word of ['word: left', 'left', 'kept']) t.notOk(did.includes(word), word);
    };
    const stopped = { name: 'couchdb', state: 'stopped', detail: 'too few nodes', next: 'add one' } as const;
    await refused('db1/db', /^too few nodes$/, {
      couchdb: reporting(() => ({ phase: 'draining' as CouchDbStatus['phase'] })),
      reconciler: {
        converged: () => true,
        status: () => [
          {
            ...stopped,
            lastConvergedAgoMs: undefined,
            runs: 1,
            changes: 0,
            failed: 0,
            busyMs: 5,
            seen: undefined,
            seenAgoMs: undefined,
            alarms: [],
          },
        ],
      },
    });
    for (const program of ['bird', 'layer2'])
      await refused('app1/app', /^the floating IP cannot be removed from /, {
        reconciler: { converged: (asked) => asked !== program, status: () => [] },
      });
  },
);

t.test('where the provider moves the floating IPs, an app node serves until another has them', async (t) => {
  const api = configOf(
    'app',
    '[floating]\nmode = "api"\nprovider = "digitalocean"\naddresses = ["192.0.2.7"]\ntoken_file = "/t"\n',
  );
  const leaveWith = async (holds: (asked: number) => boolean) => {
    let asked = 0;
    const { leave, did, told } = leaving('app1/app', {}, { config: api, holds: () => holds((asked += 1)) });
    await leave.run({}, told);
    return did.filter((each) => /another node has|no other node has/.test(each));
  };
  const waits = 'told: waiting until another node has the floating IPs';
  t.strictSame(await leaveWith((asked) => asked < 3), [waits, 'told: another node has them']);
  t.strictSame(await leaveWith(() => true), [waits, 'told: no other node has them yet: going on']);
  t.strictSame(await leaveWith(() => false), []);
});

t.test(
  'what lasts is ended in the second half of the drain, a larger share of the rest each time',
  async (t) => {
    const shares: number[] = [];
    let open = 3;
    let looks = 0;
    const looksBefore: number[] = [];
    const { leave, did, told } = leaving('app1/app', {
      flow: {
        traffic: async () => {
          looks += 1;
          return { requests: open, summary: `${open} open requests` };
        },
        endStreams: async (share) => {
          looksBefore.push(looks);
          shares.push(share);
          open -= Math.ceil(open * share);
          return { ended: 1 };
        },
      },
    });
    await leave.run({ drainMs: 60_000 }, told);
    t.equal(shares.length, 3, 'one at a time');
    t.ok((looksBefore[0] ?? 0) >= 4, 'requests that end by themselves have half of the time');
    t.ok(did.includes('told: draining: 3 open requests'));
    t.same(
      shares,
      shares.toSorted((a, b) => a - b),
      'the rest gets smaller',
    );
    t.equal(did.filter((each) => each === 'told: drained: 0 open requests').length, 1);
  },
);

t.test('a db node that no peer reaches does not wait for ever, and reports the cause', async (t) => {
  const filling = {
    couchdb: reporting(() => ({ phase: 'draining' as CouchDbStatus['phase'], waiting: 'copies' })),
  };
  for (const state of ['dead', 'suspect', 'absent'] as const) {
    const rows = [row({ name: 'db1/db', self: true }), row({ name: 'db2/db', state })];
    const { leave, did, told } = leaving('db1/db', filling, { rows });
    await t.rejects(leave.run({}, told), {
      code: 'leave-refused',
      message: /^no other node is reachable/,
      next: /--force/,
    });
    t.ok(did.includes('told: no other node is reachable, so none learns that db1/db is leaving'), state);
  }
  const rows = [row({ name: 'db1/db', self: true }), row({ name: 'db2/db', state: 'dead' })];
  const { leave, did, told } = leaving('db1/db', filling, { rows });
  await leave.run({ force: true }, told);
  t.ok(did.includes('told: no other node is reachable, so none can take the copies of the data'));
  t.notOk(did.some((each) => each.includes('the others have every copy')));
  t.ok(did.includes('kept'));
});

t.test('the last of a role and the last authority announce nothing unless forced', async (t) => {
  const alone = view([member('db1/db', { self: true })]);
  const last = leaving('db1/db', {}, { view: alone, rows: [] });
  await t.rejects(last.leave.run({}, last.told), { code: 'guard-last-of-role' });
  t.strictSame(last.did, []);
  await last.leave.run({ force: true }, last.told);
  t.ok(last.did.includes('kept'));
  const rows = [row({ name: 'db1/db', self: true, authority: true }), row({ name: 'db2/db' })];
  const authority = leaving('db1/db', {}, { rows });
  await t.rejects(authority.leave.run({}, authority.told), { code: 'guard-last-authority' });
  t.strictSame(authority.did, []);
});
