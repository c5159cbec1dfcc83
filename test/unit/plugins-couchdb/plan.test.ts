import t from 'tap';
import {
  desired,
  directory,
  freshTag,
  kinds,
  look,
  map,
  member,
  node,
  observed,
  proof,
  systemMaps,
  type SceneFacts,
} from './scene.ts';
import { configFiles } from '../../../src/plugins/couchdb/config.ts';
import { outlookOf } from '../../../src/plugins/couchdb/plan.ts';

const three = [member(1), member(2), member(3)];
const two = [member(1), member(2)];

interface Row {
  readonly when: string;
  readonly scene: SceneFacts;
  readonly phase: string;
  readonly changes: readonly string[];
  /** Parts of what it waits for. */
  readonly waits?: string;
  readonly alarm?: string;
  /** Not all agree, so clients may not create or delete databases either. */
  readonly disagrees?: true;
}

const alone = { marker: undefined, record: undefined };

const own: readonly Row[] = [
  { when: 'all is well', scene: { self: 1, members: three }, phase: 'serving', changes: [] },
  {
    when: 'the very first node, empty',
    scene: { self: 1, members: [member(1, { tag: undefined })], maintenance: [1], maps: [], ...alone },
    phase: 'proving',
    changes: ['marker'],
  },
  {
    when: 'the very first node, remembered',
    scene: { self: 1, members: [member(1)], maintenance: [1], maps: [] },
    phase: 'proving',
    changes: ['open'],
    waits: 'this node to open',
  },
  {
    when: 'the first in the roster was emptied and others serve: no second cluster',
    scene: { self: 1, members: two, cluster: [1], maintenance: [1], maps: [], ...alone },
    phase: 'fresh',
    changes: [],
    waits: 'a member to admit this node',
  },
  {
    when: 'the first in the roster is empty and another was never heard',
    scene: {
      self: 1,
      members: [member(1), member(2, { tag: undefined, alive: false })],
      cluster: [1],
      maintenance: [1],
      maps: [],
      ...alone,
    },
    phase: 'fresh',
    changes: [],
    waits: 'db2/db, to avoid founding a second cluster',
  },
  {
    when: 'the first in the roster is empty and another was in a cluster once',
    scene: {
      self: 1,
      members: [member(1), member(2, { tag: 'down' })],
      cluster: [1],
      maintenance: [1],
      maps: [],
      ...alone,
    },
    phase: 'fresh',
    changes: [],
    waits: 'a member to admit this node',
  },
  {
    when: 'a joiner has databases of its own',
    scene: {
      self: 2,
      members: two,
      cluster: [2],
      connected: [2],
      maintenance: [2],
      maps: [map('mine', [2])],
      ...alone,
    },
    phase: 'refused',
    changes: ['refuse'],
  },
  {
    when: 'a fresh joiner is not in maintenance',
    scene: { self: 2, members: two, cluster: [2], connected: [2], maps: [], ...alone },
    phase: 'fresh',
    changes: ['maintenance'],
    waits: 'admit this node',
  },
  {
    when: 'the data is another node’s',
    scene: { self: 1, members: three, marker: { nodeName: node(9), peerId: 'peer-9' } },
    phase: 'refused',
    changes: ['refuse'],
  },
  {
    when: 'the peer id of the marker is another’s: a copied disk',
    scene: { self: 1, members: three, marker: { nodeName: node(1), peerId: 'peer-9' } },
    phase: 'refused',
    changes: ['refuse'],
  },
  {
    when: 'it runs under another name',
    scene: { self: 1, members: three, server: { nodeName: node(9) } },
    phase: 'refused',
    changes: ['refuse'],
  },
  {
    when: 'back in maintenance, all proved',
    scene: { self: 2, members: three, maintenance: [2], proof: proof() },
    phase: 'proving',
    changes: ['open'],
  },
  {
    when: 'back in maintenance, not all proved',
    scene: {
      self: 2,
      members: three,
      maintenance: [2],
      proof: proof({
        proved: 0,
        waitingMs: 500,
        lacking: [{ database: 'app', incomplete: true, carry: false, disagree: false }],
      }),
    },
    phase: 'proving',
    changes: [],
    waits: '0 of 1',
  },
  {
    when: 'a copy has the wrong _security',
    scene: {
      self: 2,
      members: three,
      maintenance: [2],
      proof: proof({
        proved: 0,
        lacking: [{ database: 'app', incomplete: false, carry: true, disagree: false }],
      }),
    },
    phase: 'proving',
    changes: ['carry'],
    waits: '0 of 1',
  },
  {
    when: 'back, all proved, and others wait for it: it opens, and works for them afterwards',
    scene: {
      self: 1,
      members: [member(1), member(2), member(3, { tag: freshTag() })],
      cluster: [1, 2],
      maintenance: [1],
      maps: [...systemMaps([1, 2]), map('app', [1, 2], { _conflicts: ['1-z'] })],
      proof: proof(),
    },
    phase: 'proving',
    changes: ['open'],
    alarm: 'couchdb-map-conflict',
  },
  {
    when: 'an idle database was left behind',
    scene: {
      self: 2,
      members: three,
      maintenance: [2],
      proof: proof({
        proved: 0,
        waitingMs: 5000,
        lacking: [{ database: 'app', incomplete: true, carry: false, disagree: false }],
      }),
    },
    phase: 'proving',
    changes: ['sync'],
  },
  {
    when: 'all were restarted and one copy cannot be proved',
    scene: {
      self: 2,
      members: three,
      maintenance: [1, 2, 3],
      proof: proof({
        proved: 0,
        waitingMs: 11_000,
        alone: true,
        lacking: [{ database: 'app', incomplete: true, carry: false, disagree: false }],
      }),
    },
    phase: 'proving',
    changes: ['open'],
  },
  {
    when: 'one copy cannot be proved, but another node serves it: patience',
    scene: {
      self: 2,
      members: three,
      maintenance: [2],
      proof: proof({
        proved: 0,
        waitingMs: 60_000,
        lacking: [{ database: 'app', incomplete: true, carry: false, disagree: false }],
      }),
    },
    phase: 'proving',
    changes: ['sync'],
  },
  {
    when: 'a serving member is not connected: it may have what this one missed',
    scene: { self: 2, members: three, connected: [2, 3], maintenance: [2], proof: proof() },
    phase: 'proving',
    changes: [],
    waits: `${node(1)}, which serves`,
  },
  {
    when: 'the missing member is dead: open',
    scene: {
      self: 2,
      members: [member(1, { alive: false }), member(2), member(3)],
      connected: [2, 3],
      maintenance: [2],
      proof: proof(),
    },
    phase: 'proving',
    changes: ['open'],
  },
  {
    when: 'the shard maps are not all here: nothing to prove is no proof',
    scene: {
      self: 2,
      members: three,
      maintenance: [2],
      maps: [],
      words: { 1: { databases: 3 }, 3: { databases: 3 } },
      proof: proof({ total: 0, proved: 0 }),
    },
    phase: 'proving',
    changes: [],
    waits: 'shard maps',
  },
  {
    when: 'it does not answer about itself, as when a cut begins while it is asked: it serves on',
    scene: { self: 1, members: two, words: { 1: undefined } },
    phase: 'serving',
    changes: [],
    waits: 'about this node',
    disagrees: true,
  },
  {
    when: 'no node document is its own any more',
    scene: { self: 1, members: three, cluster: [2, 3] },
    phase: 'proving',
    changes: ['maintenance'],
  },
  {
    when: 'it does not answer about itself and is in maintenance: it does not open',
    scene: { self: 1, members: two, maintenance: [1], words: { 1: undefined }, proof: proof() },
    phase: 'proving',
    changes: [],
    waits: 'about this node',
  },
  {
    when: 'its copies are still being added',
    scene: { self: 2, members: two, maintenance: [2], documents: { 2: { decom: true } }, proof: proof() },
    phase: 'proving',
    changes: [],
    waits: 'coordinator',
  },
  {
    when: 'copies are being added and it is not in maintenance',
    scene: { self: 2, members: two, documents: { 2: { bornemisza: 'filling' } } },
    phase: 'proving',
    changes: ['maintenance'],
  },
  {
    when: 'it has left',
    scene: {
      self: 3,
      members: [member(1), member(2), member(3, { phase: 'leaving' })],
      cluster: [1, 2],
      connected: [1, 2, 3],
    },
    phase: 'left',
    changes: ['maintenance', 'forget-marker'],
    waits: 'wiped',
  },
];

const cluster: readonly Row[] = [
  {
    when: 'alone and open: system databases at once',
    scene: { self: 1, members: [member(1)], maps: [] },
    phase: 'serving',
    changes: ['create-database', 'create-database', 'create-database'],
  },
  {
    when: 'the user of the app nodes is not there',
    scene: { self: 1, members: [member(1)], server: { appUser: 'missing' } },
    phase: 'serving',
    changes: ['app-user'],
  },
  {
    when: 'the user of the app nodes has another password',
    scene: { self: 1, members: [member(1), member(2)], server: { appUser: 'other-password' } },
    phase: 'serving',
    changes: ['app-user'],
  },
  {
    when: 'the user of the app nodes lost its role',
    scene: { self: 1, members: [member(1), member(2)], server: { appUser: 'no-role' } },
    phase: 'serving',
    changes: ['app-user'],
  },
  {
    when: '_users does not let people with an account in',
    scene: { self: 1, members: [member(1), member(2)], server: { appUser: 'users-closed' } },
    phase: 'serving',
    changes: ['app-user'],
  },
  {
    when: 'only the coordinator writes it',
    scene: { self: 2, members: [member(1), member(2)], server: { appUser: 'missing' } },
    phase: 'serving',
    changes: [],
  },
  {
    when: 'nobody writes it during a cut',
    scene: { self: 1, members: [member(1), member(2)], connected: [1], server: { appUser: 'missing' } },
    phase: 'serving',
    changes: [],
    waits: 'not connected',
    disagrees: true,
  },
  {
    when: 'alone, and a joiner is ready: it comes in first',
    scene: { self: 1, members: [member(1), member(2, { tag: freshTag() })], cluster: [1], maps: [] },
    phase: 'serving',
    changes: ['admit'],
  },
  {
    when: 'a joiner runs another version',
    scene: {
      self: 1,
      members: [member(1), member(2, { tag: 'fresh:3.4.2:0123456789abcdef' })],
      cluster: [1],
    },
    phase: 'serving',
    changes: [],
    alarm: 'couchdb-version-differs',
  },
  {
    when: 'a joiner has another cookie',
    scene: {
      self: 1,
      members: [member(1), member(2, { tag: 'fresh:3.5.0:0123456789abcdef' })],
      cluster: [1],
    },
    phase: 'serving',
    changes: [],
    alarm: 'couchdb-settings-differ',
  },
  {
    when: 'a joiner did not come when it was let in',
    scene: {
      self: 1,
      members: [member(1), member(2, { tag: freshTag() })],
      cluster: [1],
      server: { shunned: new Set([node(2)]) },
    },
    phase: 'serving',
    changes: [],
    alarm: 'couchdb-joiner-silent',
  },
  {
    when: 'not the coordinator: nothing to do',
    scene: { self: 2, members: [...two, member(3, { tag: freshTag() })], cluster: [1, 2] },
    phase: 'serving',
    changes: [],
  },
  {
    when: 'the coordinator’s daemon is dead: the next one acts',
    scene: {
      self: 2,
      members: [member(1, { alive: false }), member(2), member(3, { tag: freshTag() })],
      cluster: [1, 2],
    },
    phase: 'serving',
    changes: ['admit'],
  },
  {
    when: 'a member is missing: no administrative write, whoever asks',
    scene: {
      self: 1,
      members: [...three, member(4, { tag: freshTag() })],
      cluster: [1, 2, 3],
      connected: [1, 2],
    },
    phase: 'serving',
    changes: [],
    waits: 'not connected: db3/db',
    disagrees: true,
  },
  {
    when: 'two members do not see each other',
    scene: {
      self: 1,
      members: [...three, member(4, { tag: freshTag() })],
      cluster: [1, 2, 3],
      words: { 2: { connected: [node(1), node(2)] } },
    },
    phase: 'serving',
    changes: [],
    waits: 'db2/db is not connected to db3/db',
    disagrees: true,
  },
  {
    when: 'one member has other node documents',
    scene: {
      self: 1,
      members: [...three, member(4, { tag: freshTag() })],
      cluster: [1, 2, 3],
      words: { 3: { documents: [{ _id: node(1), _rev: '2-b' }] } },
    },
    phase: 'serving',
    changes: [],
    waits: 'db3/db has other node documents',
    disagrees: true,
  },
  {
    when: 'a joiner is in: its copies',
    scene: {
      self: 1,
      members: two,
      maps: systemMaps([1]),
      maintenance: [2],
      documents: { 2: { decom: true } },
    },
    phase: 'serving',
    changes: ['add-copies', 'add-copies', 'add-copies'],
  },
  {
    when: 'a joiner is in and not in maintenance: first that',
    scene: { self: 1, members: two, maps: systemMaps([1]), documents: { 2: { decom: true } } },
    phase: 'serving',
    changes: ['maintenance'],
  },
  {
    when: 'a joiner has its copies in the maps: it may prove them',
    scene: { self: 1, members: two, maintenance: [2], documents: { 2: { decom: true } } },
    phase: 'serving',
    changes: ['node-document'],
  },
  {
    when: 'only databases made meanwhile are missing on a joiner: the next ones get copies there',
    scene: {
      self: 1,
      members: two,
      maintenance: [2],
      maps: [...systemMaps([1, 2]), map('late', [1])],
      documents: { 2: { decom: true, bornemisza: 'filling' } },
      server: { late: new Set(['late']) },
    },
    phase: 'serving',
    changes: ['node-document'],
  },
  {
    when: 'new ones get copies on the joiner: what was made meanwhile is added',
    scene: {
      self: 1,
      members: two,
      maintenance: [2],
      maps: [...systemMaps([1, 2]), map('late', [1])],
      documents: { 2: { bornemisza: 'filling' } },
      server: { late: new Set(['late']) },
    },
    phase: 'serving',
    changes: ['add-copies'],
  },
  {
    when: 'what was there before comes first, and says how far it is',
    scene: {
      self: 1,
      members: two,
      maintenance: [2],
      maps: [...systemMaps([1, 2]), map('early', [1]), map('late', [1])],
      documents: { 2: { decom: true, bornemisza: 'filling' } },
      server: { late: new Set(['late']) },
    },
    phase: 'serving',
    changes: ['add-copies'],
    waits: '4 of 5 databases',
  },
  {
    when: 'a database made while a joiner proves does not call it back',
    scene: {
      self: 1,
      members: two,
      maintenance: [2],
      maps: [...systemMaps([1, 2]), map('late', [1])],
      documents: { 2: { decom: true, bornemisza: 'filled' } },
    },
    phase: 'serving',
    changes: [],
    waits: 'to prove its copies',
  },
  {
    when: 'a joiner proves',
    scene: {
      self: 1,
      members: two,
      maintenance: [2],
      documents: { 2: { decom: true, bornemisza: 'filled' } },
    },
    phase: 'serving',
    changes: [],
    waits: 'to prove its copies',
  },
  {
    when: 'a joiner is open: new databases may use it',
    scene: { self: 1, members: two, documents: { 2: { decom: true, bornemisza: 'filled' } } },
    phase: 'serving',
    changes: ['node-document'],
  },
  {
    when: 'a joiner never connected: taken back, though not all are connected',
    scene: {
      self: 1,
      members: two,
      cluster: [1, 2],
      connected: [1],
      maps: systemMaps([1]),
      documents: { 2: { decom: true } },
    },
    phase: 'serving',
    changes: ['expel'],
  },
  {
    when: 'a database was made while a node was missing: the mark first, then maintenance',
    scene: { self: 1, members: three, maps: [...systemMaps([1, 2, 3]), map('app', [1, 2])] },
    phase: 'serving',
    changes: ['node-document', 'maintenance'],
  },
  {
    when: 'copies are missing on a node that alone serves something: not interrupted, alarm',
    scene: { self: 1, members: two, maps: [...systemMaps([1, 2]), map('a', [1]), map('b', [2])] },
    phase: 'serving',
    changes: [],
    alarm: 'couchdb-cannot-fill',
  },
  {
    when: 'a member wants to leave: no new databases on it',
    scene: { self: 1, members: [member(1), member(2), member(3, { phase: 'leaving' })] },
    phase: 'serving',
    changes: ['node-document'],
  },
  {
    when: 'a leaver is marked and all is on the others: into maintenance, then its copies',
    scene: {
      self: 1,
      members: [member(1), member(2), member(3, { phase: 'leaving' })],
      documents: { 3: { decom: true, bornemisza: 'leaving' } },
    },
    phase: 'serving',
    changes: ['maintenance'],
  },
  {
    when: 'a leaver in maintenance: its copies go',
    scene: {
      self: 1,
      members: [member(1), member(2), member(3, { phase: 'leaving' })],
      maintenance: [3],
      documents: { 3: { decom: true, bornemisza: 'leaving' } },
    },
    phase: 'serving',
    changes: ['remove-copies', 'remove-copies', 'remove-copies'],
  },
  {
    when: 'a leaver is in no map: its document goes',
    scene: {
      self: 1,
      members: [member(1), member(2), member(3, { phase: 'leaving' })],
      maintenance: [3],
      maps: systemMaps([1, 2]),
      documents: { 3: { decom: true, bornemisza: 'leaving' } },
    },
    phase: 'serving',
    changes: ['expel'],
  },
  {
    when: 'only the leaver has a database: it is copied first',
    scene: {
      self: 1,
      members: [member(1), member(2), member(3, { phase: 'leaving' })],
      maps: [...systemMaps([1, 2, 3]), map('app', [3])],
      documents: { 3: { decom: true, bornemisza: 'leaving' } },
    },
    phase: 'serving',
    changes: ['node-document', 'maintenance'],
  },
  {
    when: 'the last node wants to leave',
    scene: { self: 1, members: [member(1, { phase: 'leaving' })], maps: systemMaps([1]) },
    phase: 'leaving',
    changes: ['refuse'],
  },
  {
    when: 'a silent leaver: nobody takes its copies away',
    scene: {
      self: 1,
      members: [member(1), member(2), member(3, { phase: 'leaving', alive: false })],
      connected: [1, 2],
      documents: { 3: { decom: true, bornemisza: 'leaving' } },
    },
    phase: 'serving',
    changes: [],
    waits: 'not connected',
    disagrees: true,
  },
  {
    when: 'the operator gave a node up: out of the cluster',
    scene: {
      self: 1,
      members: [member(1), member(2), member(3, { phase: 'removed', alive: false })],
      connected: [1, 2],
    },
    phase: 'serving',
    changes: ['expel'],
  },
  {
    when: 'given up and out: off the maps',
    scene: {
      self: 1,
      members: [member(1), member(2), member(3, { phase: 'removed', alive: false })],
      cluster: [1, 2],
      maps: systemMaps([1, 2, 3]),
    },
    phase: 'serving',
    changes: ['remove-copies', 'remove-copies', 'remove-copies'],
  },
  {
    when: 'given up with the last copy of something: its map stays, and is named',
    scene: {
      self: 1,
      members: [member(1), member(2), member(3, { phase: 'removed', alive: false })],
      cluster: [1, 2],
      maps: [...systemMaps([1, 2]), map('app', [3])],
    },
    phase: 'serving',
    changes: [],
    alarm: 'couchdb-last-copy',
  },
  {
    when: 'a node that no roster knows is in the cluster: an alarm, nothing is done to it',
    scene: { self: 1, members: two, cluster: [1, 2, 7], maps: systemMaps([1, 2, 7]) },
    phase: 'serving',
    changes: [],
    alarm: 'couchdb-stranger',
  },
  {
    when: 'a node document has a loser',
    scene: { self: 1, members: three, documents: { 3: { _conflicts: ['1-z'] } } },
    phase: 'serving',
    changes: ['repair-node-document'],
  },
  {
    when: 'a shard map has a loser',
    scene: {
      self: 1,
      members: three,
      maps: [...systemMaps([1, 2, 3]), map('app', [1, 2, 3], { _conflicts: ['1-z'] })],
    },
    phase: 'serving',
    changes: ['repair-map'],
    alarm: 'couchdb-map-conflict',
  },
  {
    when: 'a shard map that only a person can repair keeps nobody from other work',
    scene: {
      self: 1,
      members: [...two, member(3, { tag: freshTag() })],
      cluster: [1, 2],
      maps: [...systemMaps([1, 2]), map('app', [1, 2], { _conflicts: ['1-z'] })],
      server: { unrepairable: new Set(['app 1-a']) },
    },
    phase: 'serving',
    changes: ['admit'],
    alarm: 'couchdb-map-conflict',
  },
];

for (const [name, rows] of [
  ['what a node does about itself', own],
  ['what the coordinator does', cluster],
] as const) {
  t.test(name, async (t) => {
    for (const row of rows) {
      const outlook = look(row.scene);
      t.same(kinds(outlook), row.changes, `${row.when}: changes`);
      t.equal(outlook.phase, row.phase, `${row.when}: phase`);
      if (row.phase === 'serving')
        t.equal(outlook.disagreement !== undefined, row.disagrees === true, `${row.when}: whether all agree`);
      if (row.waits !== undefined) t.match(outlook.waiting, row.waits, `${row.when}: waits`);
      if (row.alarm !== undefined)
        t.ok(
          outlook.alarms.some((alarm) => alarm.code === row.alarm),
          `${row.when}: alarm`,
        );
    }
  });
}

t.test('the first document of a joiner is no other than decom', async (t) => {
  const outlook = look({ self: 1, members: [member(1), member(2, { tag: freshTag() })], cluster: [1] });
  t.match(outlook.changes[0], { kind: 'admit', node: node(2), arbiter: node(1) });
});

t.test('every edit goes through the first settled member', async (t) => {
  const outlook = look({
    self: 2,
    members: [member(1, { alive: false }), member(2), member(3)],
    maps: [...systemMaps([1, 2, 3]), map('app', [1, 2])],
    maintenance: [3],
    documents: { 3: { bornemisza: 'filling' } },
  });
  t.match(outlook.changes[0], { kind: 'add-copies', node: node(3), arbiter: node(1), database: 'app' });
});

t.test('a plan for thousands of databases is a stretch, not a list of all', async (t) => {
  const maps = Array.from({ length: 5000 }, (_, number) => map(`userdb-${number}`, [1]));
  const outlook = look({
    self: 1,
    members: two,
    maps: [...systemMaps([1]), ...maps],
    maintenance: [2],
    documents: { 2: { decom: true } },
  });
  t.equal(outlook.changes.length, 64);
});

t.test('files', async (t) => {
  const wanted = desired(1, three);
  const seen = observed({ self: 1, members: three }, wanted);

  t.test('changed settings are written and a restart is asked for', async (t) => {
    const files = new Map(seen.files);
    files.set('vm.args', 'edited by hand\n');
    const outlook = outlookOf(wanted, { ...seen, files }, directory);
    t.same(kinds(outlook), ['file'], 'an edit by hand that CouchDB does not run with is only put back');
    t.match(outlook, { phase: 'serving', disagreement: undefined }, 'and nobody is taken out for it');
    const down = outlookOf(wanted, { ...seen, files, http: { kind: 'down' } }, directory);
    t.same(kinds(down), ['file', 'restart']);
  });

  t.test('CouchDB that does not run is started without waiting for its turn', async (t) => {
    const off = { ...seen, http: { kind: 'down' as const } };
    const fresh = { ...off, files: new Map() };
    const noTurn = desired(1, three, { mayRestart: false });
    t.equal(
      kinds(outlookOf(noTurn, fresh, directory)).at(-1),
      'restart',
      'it serves nobody, so it takes nothing away',
    );
    t.notOk(
      kinds(outlookOf(noTurn, off, directory)).includes('restart'),
      'its unit starts it again after a crash',
    );
    const long = { ...off, restartAskedAgoMs: 31_000 };
    t.ok(
      kinds(outlookOf(noTurn, long, directory)).includes('restart'),
      'a start that got lost is asked for again',
    );
    t.notOk(kinds(outlookOf(noTurn, { ...long, restartPending: true }, directory)).includes('restart'));
  });

  t.test('CouchDB that runs with other settings is restarted when its turn comes', async (t) => {
    const { http } = seen;
    if (http.kind !== 'up') throw new Error('the scene is up');
    const stale = {
      ...seen,
      http: { kind: 'up' as const, server: { ...http.server, runningDigest: 'other' } },
    };
    const told = { ...stale, restartDueForMs: 3000 };
    for (const [what, waiting] of [
      [
        'the others have not heard of it yet',
        outlookOf(wanted, { ...stale, restartDueForMs: 2999 }, directory),
      ],
      ['not its turn', outlookOf(desired(1, three, { mayRestart: false }), told, directory)],
    ] as const) {
      t.same(kinds(waiting), [], what);
      t.equal(waiting.phase, 'serving', `${what}: it serves on`);
      t.match(waiting.waiting, 'waits for its turn', what);
      t.equal(waiting.restart, 'due', what);
    }
    const turn = outlookOf(wanted, told, directory);
    t.same(kinds(turn), ['restart']);
    t.equal(turn.restart, 'now');
    const asked = outlookOf(wanted, { ...told, restartPending: true }, directory);
    t.same(kinds(asked), [], 'asked for once');
    t.equal(asked.restart, 'now');
    t.equal(outlookOf(wanted, seen, directory).restart, undefined, 'nothing is due');

    const closed = { ...http.server, runningDigest: 'other', maintenance: true };
    const noTurn = desired(1, three, { mayRestart: false });
    t.same(
      kinds(outlookOf(noTurn, { ...seen, http: { kind: 'up', server: closed } }, directory)),
      ['restart'],
      'in maintenance it serves nobody',
    );
  });

  t.test('another cookie is for all at once: nobody waits for its turn', async (t) => {
    const { http } = seen;
    if (http.kind !== 'up') throw new Error('the scene is up');
    const server = { ...http.server, runningDigest: 'other', runningCookie: 'other' };
    const noTurn = desired(1, three, { mayRestart: false });
    t.same(kinds(outlookOf(noTurn, { ...seen, http: { kind: 'up', server } }, directory)), ['restart']);
  });

  t.test('a node that was in and whose data is gone asks the others first', async (t) => {
    const emptied = observed(
      { self: 2, members: three, cluster: [2], maps: [], maintenance: [2], marker: undefined },
      desired(2, three),
    );
    const outlook = outlookOf(desired(2, three), emptied, directory);
    t.same(kinds(outlook), ['file', 'restart']);
    const [change] = outlook.changes;
    t.match(change?.kind === 'file' ? change.file.content : '', `seedlist = ${node(1)},${node(3)}`);
  });

  t.test('a password that was refused is terminal, a CouchDB that is down is not', async (t) => {
    t.match(outlookOf(wanted, { ...seen, http: { kind: 'refused' } }, directory).changes, [
      { kind: 'refuse', code: 'couchdb-password-refused', outcome: 'terminal' },
    ]);
    t.match(outlookOf(wanted, { ...seen, http: { kind: 'down' } }, directory).changes, [
      { kind: 'refuse', code: 'couchdb-down', outcome: 'retry' },
    ]);
  });

  t.test('a locked account takes nobody out who serves, and opens nobody', async (t) => {
    const locked = (open: boolean, more: Partial<SceneFacts> = {}) =>
      look({ self: 1, members: three, ...more, observed: { http: { kind: 'locked', open } } });
    const found = locked(true);
    t.equal(found.phase, 'serving');
    t.match(found.changes, [{ kind: 'refuse', code: 'couchdb-account-locked', outcome: 'retry' }]);
    t.match(found.changes, [{ summary: /another client/, next: /5 minutes/ }]);
    t.match(found.disagreement?.message, /locked/, 'databases are not created or deleted meanwhile');
    t.equal(locked(false).phase, 'down', 'in maintenance it serves nobody');
    t.equal(locked(true, alone).phase, 'down', 'one that was never in serves nobody');
    const leaver = [member(1, { phase: 'leaving' }), member(2), member(3)];
    t.equal(locked(true, { members: leaver }).phase, 'down');
  });

  t.test('a CouchDB that answers no administrator behind a cut names whom it waits for', async (t) => {
    const failed = { kind: 'failed' as const, detail: 'GET /: 500 badmatch', unheard: [] };
    const badly = outlookOf(wanted, { ...seen, http: failed }, directory);
    t.match(badly, { disagreement: { message: 'CouchDB answers badly: GET /: 500 badmatch', subjects: [] } });
    const cut = outlookOf(wanted, { ...seen, http: { ...failed, unheard: [node(2)] } }, directory);
    t.match(cut, {
      disagreement: { message: 'CouchDB does not answer, and db2/db is not reachable', subjects: ['db2/db'] },
    });
    t.match(cut.changes, [{ kind: 'refuse', code: 'couchdb-answer', outcome: 'retry', next: /18 s/ }]);
  });

  t.test('equal desired state, equal bytes', async (t) => {
    t.same(configFiles(wanted, directory, []), configFiles(desired(1, three), directory, []));
  });
});
