import t from 'tap';
import type { Member, NodeRecord } from '../../../src/daemon/membership/types.ts';
import { conditionsOf, endOf, noticeTag } from '../../../src/daemon/notification/conditions.ts';
import { messageAbout, testMessage } from '../../../src/daemon/notification/message.ts';
import type { NoticeEvent } from '../../../src/daemon/notification/policy.ts';
import { HOLDS_TAG } from '../../../src/roles/holder.ts';
import { member, viewOf } from './views.ts';

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5);
const DAY = 24 * 3_600_000;

function found(
  members: readonly Member[],
  more: { synced?: boolean; upMs?: number; ends?: Record<string, number> } = {},
) {
  const view = viewOf(members, more.synced ?? true);
  const ends = Object.fromEntries(members.map(({ record }) => [record.name, NOW + 60 * DAY]));
  return conditionsOf({
    view,
    certificates: new Map(Object.entries({ ...ends, ...more.ends })),
    wallMs: NOW,
    upMs: more.upMs ?? 3_600_000,
  });
}

t.test(
  'a dead member is reported with its incarnation, so that its next death is another event',
  async (t) => {
    const dead = (record: Partial<NodeRecord>) =>
      found([member('app1/app', { self: true }), member('db2/db', { state: 'dead', record })]);
    t.match(dead({ incarnation: 7 }), [
      {
        key: 'dead db2/db 7',
        kind: 'node-dead',
        subject: 'db2/db',
        announced: false,
        next: /remove db2\/db --dead/,
      },
    ]);
    t.not(dead({ incarnation: 8 })[0]?.key, dead({ incarnation: 7 })[0]?.key);
    t.match(dead({ goodbye: { kind: 'shutdown', windowMs: 1 } }), [
      { announced: true, what: /its machine shuts down, and is not back/ },
    ]);
    t.match(
      dead({ goodbye: { kind: 'restart', windowMs: 1 } }),
      [{ announced: false }],
      'a restart must not take so long',
    );
    t.match(dead({ maintenance: true }), [{ announced: true }]);
  },
);

t.test(
  'a reason that keeps a provider from moving a floating IP is reported, and a healthy state is not',
  async (t) => {
    const words = (server: string) =>
      found([member('app1/app', { self: true, record: { tags: { server } } })]);
    t.match(words('12 floating-token'), [
      {
        key: 'assignment app1/app floating-token',
        kind: 'floating-failing',
        subject: 'app1/app',
        what: /^app1\/app cannot have the floating IP moved: the provider refuses its token$/,
        next: /bornemisza floating show/,
      },
    ]);
    t.match(words('12 ready floating-foreign'), [{ what: /a server that is no member/ }]);
    for (const well of ['12 ready', '12', '', '12 ready floating-busy']) t.same(words(well), [], well);
    const over = { kind: 'floating-failing', subject: 'app1/app', what: '' } as const;
    t.match(endOf(over, viewOf([])), /can have the floating IP moved again/);
  },
);

t.test('suspects, members that left, and a dead one whose name was reused are not reported', async (t) => {
  const self = member('app1/app', { self: true });
  for (const state of ['suspect', 'left', 'leaving'] as const)
    t.same(found([self, member('db2/db', { state })]), [], state);
  t.same(found([self, member('db2/db', { state: 'dead' }), member('db2/db', { state: 'alive' })]), []);
  const removed = conditionsOf({
    view: viewOf([self, member('db2/db', { state: 'dead' })]),
    certificates: new Map([['app1/app', NOW + 60 * DAY]]),
    wallMs: NOW,
    upMs: 1,
  });
  t.same(removed, [], 'nor one that no roster knows');
});

t.test('a report in one node’s record is one condition for all, whichever node reports it', async (t) => {
  const tags = {
    notice: noticeTag({
      landslides: ['app', 'db'],
      lastStanding: true,
      siteCertificateEndMs: NOW + 3 * DAY,
      dnsFails: true,
    }),
  };
  t.ok(Buffer.byteLength(tags.notice) <= 64, `${tags.notice} fits into a tag`);
  const one = found([member('app1/app', { record: { tags } }), member('app2/app')]);
  t.same(
    one.map(({ key }) => key),
    [
      'landslide app',
      'landslide db',
      'last-standing app1/app',
      'site-certificate 2026-01-05',
      'dns app1/app',
    ],
  );
  t.match(one.at(-1), {
    kind: 'dns-failing',
    what: 'app1/app could not update the DNS records for ten minutes; they are unchanged',
    next: /bornemisza status on app1\/app/,
  });
  const two = found([member('app1/app', { record: { tags } }), member('app2/app', { record: { tags } })]);
  t.same(
    two.map(({ key }) => key),
    [
      'landslide app',
      'landslide db',
      'last-standing app1/app',
      'last-standing app2/app',
      'site-certificate 2026-01-05',
      'dns app1/app',
      'dns app2/app',
    ],
  );
  t.match(two[0]?.what, 'held by app1/app, app2/app');
  const dead = found([member('app1/app', { state: 'dead', record: { tags } }), member('app2/app')]);
  t.same(
    dead.map(({ kind }) => kind),
    ['node-dead'],
    'the dead hold nothing',
  );
  t.equal(
    noticeTag({ landslides: [], lastStanding: false, siteCertificateEndMs: undefined, dnsFails: false }),
    '',
  );
  t.same(
    found([member('app1/app', { record: { tags: { notice: 'site-<b> other landslide-x' } } })]),
    [],
    'unknown words',
  );
});

t.test(
  'orders of the site’s certificate that fail for a day are one condition, whoever orders',
  async (t) => {
    const failing = { record: { tags: { certificate: 'failing' } } };
    const told = found([member('app1/app'), member('app2/app', failing), member('app3/app', failing)]);
    t.match(told, [
      {
        key: 'site-certificate orders',
        kind: 'certificate-failing',
        what: /app2\/app orders/,
        next: /certificate show on app2/,
      },
    ]);
    t.equal(told.length, 1);
    t.same(found([member('app1/app', { record: { tags: { certificate: 'other' } } })]), []);
    t.match(
      endOf({ kind: 'certificate-failing', subject: 'site', what: '' }, viewOf([member('app1/app')])),
      'was issued',
    );
  },
);

t.test('a certificate near its end is reported once for each end, and not for dead members', async (t) => {
  const near = { ends: { 'db2/db': NOW + 13 * DAY } };
  t.match(found([member('app1/app'), member('db2/db')], near), [
    { key: `certificate db2/db ${NOW + 13 * DAY}`, kind: 'certificate-ending', what: /ends on 2026-01-15/ },
  ]);
  t.same(found([member('db2/db')], { ends: { 'db2/db': NOW + 15 * DAY } }), []);
  t.match(found([member('app1/app'), member('db2/db', { state: 'dead' })], near), [{ kind: 'node-dead' }]);
});

t.test('what a node saw in BIRD is a condition of that node, by the code in its record', async (t) => {
  const said = (word: string) =>
    found([member('app1/app', { record: { tags: { [HOLDS_TAG]: word } } })]).map(({ kind, what }) => [
      kind,
      what,
    ]);
  t.same(said('exported'), []);
  t.same(said('held'), []);
  t.same(said('anything'), [], 'a word of a later version is no alarm');
  for (const code of [
    'bird-no-session',
    'bird-session-down',
    'bird-route-not-exported',
    'bird-route-by-another',
  ])
    t.match(said(code), [['announcement-failing', /^app1\/app .*(BGP|session|floating IP)/]], code);
});

t.test(
  'a rollout that stopped is one condition, with the host that was at work, though that is dead',
  async (t) => {
    const id = NOW / 1000 - 600;
    const said = (name: string, word: string, facts: Parameters<typeof member>[1] = {}) =>
      member(name, { ...facts, record: { tags: { rollout: word } } });
    const stopped = found([
      said('app1/app', `${id} stopped waiting not-back`),
      said('db1/db', `${id} running working`, { state: 'dead' }),
      said('db2/db', `${id - 86_400} stopped failed package`),
    ]);
    t.match(
      stopped.filter(({ kind }) => kind === 'rollout-stopped'),
      [
        {
          key: `rollout ${id}`,
          subject: 'db1/db',
          what: 'the rollout of a new version has stopped: a daemon on db1 did not come back after its upgrade',
          next: /^on db1: journalctl .*bornemisza upgrade resume$/,
        },
      ],
    );
    for (const word of [
      `${id} running working`,
      `${id} finished done`,
      'stopped',
      `${id + 99_999} stopped waiting operator`,
    ])
      t.same(found([said('app1/app', word)]), [], word);
    const resumed = found([
      said('app1/app', `${id} stopped waiting not-back`),
      said('db1/db', `${id + 60} running waiting`),
    ]);
    t.same(resumed, [], 'another one goes on');
  },
);

t.test(
  'a node that reaches no peer since its start reports that after two minutes, and no deaths',
  async (t) => {
    const members = [member('app1/app', { self: true }), member('db2/db', { state: 'dead' })];
    t.same(found(members, { synced: false, upMs: 60_000 }), []);
    t.match(found(members, { synced: false, upMs: 121_000 }), [
      { key: 'lonely app1/app', kind: 'guard-holding' },
    ]);
  },
);

t.test('the end of a condition is reported with the present facts', async (t) => {
  const of = (members: readonly Member[]): string =>
    endOf({ kind: 'node-dead', subject: 'db2/db', what: 'db2/db is dead' }, viewOf(members));
  t.equal(of([member('db2/db')]), 'db2/db is back');
  t.equal(
    of([member('db2/db', { state: 'dead' }), member('db2/db')]),
    'db2/db is back',
    'as its replacement',
  );
  t.equal(of([member('db2/db', { state: 'left' })]), 'db2/db has left the cluster');
  t.equal(of([]), 'db2/db is no longer a member');
});

const event = (facts: Partial<NoticeEvent>): NoticeEvent => ({
  key: 'k',
  kind: 'node-dead',
  state: 'began',
  subject: 'db2/db',
  what: 'db2/db is dead: its daemon is not heard any more',
  next: 'bring it back',
  sinceMs: NOW,
  ...facts,
});
const SENDER = { cluster: 'shop', node: 'app1/app', alone: false };

t.test('a message has what began first, in subject and text, and is bounded', async (t) => {
  const message = messageAbout(
    [event({ state: 'ended', what: 'db1/db is back', next: '', untilMs: NOW + 60_000 }), event({})],
    SENDER,
    NOW,
  );
  t.equal(message.subject, '[shop] db2/db is dead, and 1 more');
  t.equal(
    message.text,
    [
      '* db2/db is dead: its daemon is not heard any more (since 2026-01-02 03:04:05 UTC)',
      '  next: bring it back',
      '* db1/db is back (2026-01-02 03:04:05 UTC to 2026-01-02 03:05:05 UTC)',
      '',
      'Sent by app1/app of cluster shop.',
      '',
    ].join('\n'),
  );
  t.equal(message.payload.text, `${message.subject}\n${message.text}`);
  const many = messageAbout(
    Array.from({ length: 500 }, (_, at) => event({ key: `${at}` })),
    SENDER,
    NOW,
  );
  t.match(many.text, '… and 470 more: bornemisza events');
  t.ok(many.text.length < 8000);
  t.equal(many.payload.events.length, 500);
  t.match(
    messageAbout([event({})], { ...SENDER, alone: true }, NOW).text,
    /^app1\/app reaches no other node/,
  );
  t.match(testMessage(SENDER, NOW), {
    subject: '[shop] test from app1/app',
    payload: { test: true, events: [] },
  });
});

t.test('a full disk is reported for each reachable node that reports one', async (t) => {
  const full = { record: { tags: { disk: 'full' } } };
  const self = member('app1/app', { self: true });
  t.match(found([self, member('db2/db', full)]), [
    {
      kind: 'disk-full',
      subject: 'db2/db',
      what: /CouchDB will soon refuse writes/,
      next: /status on db2\/db/,
    },
  ]);
  t.match(found([self, member('app2/app', full)]), [
    { kind: 'disk-full', what: /keep their present configuration/ },
  ]);
  t.same(found([self, member('app2/app', { record: { tags: { disk: 'else' } } })]), []);
  t.notMatch(found([self, member('db2/db', { ...full, state: 'dead' })]), [{ kind: 'disk-full' }]);
  const [condition] = found([self, member('db2/db', full)]);
  t.match(condition && endOf(condition, viewOf([self])), /disks of db2\/db have room again/);
});

t.test(
  'a device without link and too little memory are reported; faults of later versions are not',
  async (t) => {
    const self = member('app1/app', { self: true });
    const of = (machine: string, changes: object = {}) =>
      member('db2/db', { record: { tags: { machine } }, ...changes });
    const kinds = (machine: string) =>
      found([self, of(machine)]).map(({ kind, subject }) => `${kind} ${subject}`);
    t.same(kinds('public-link'), ['link-down db2/db']);
    t.same(kinds('private-link memory'), ['link-down db2/db', 'memory-pressure db2/db']);
    t.same(kinds('restarts'), ['unit-restarts db2/db']);
    for (const word of ['', 'quantum-link', 'constructor', '__proto__']) t.same(kinds(word), [], word);
    t.notMatch(found([self, of('memory', { state: 'dead' })]), [{ kind: 'memory-pressure' }]);
    const both = found([self, of('public-link memory')]);
    t.match(both, [
      {
        what: 'the public device of db2/db has no link: visitors do not reach it',
        next: /status on db2\/db/,
      },
      { what: 'the machine of db2/db has too little memory: its work waits for it' },
    ]);
    const ends = both.map((each) => endOf(each, viewOf([self])));
    t.match(ends, [
      /devices of db2\/db have their links again/,
      /machine of db2\/db has enough memory again/,
    ]);
  },
);
