import t from 'tap';
import { dbCouchDb, dbHaproxy, type DbInput, mayRestart, unheardNodes } from '../../../src/roles/db.ts';
import type { EffectiveMember } from '../../../src/roles/effective.ts';
import { type MemberCase, member, view } from './cases.ts';

const dbDesired = (input: DbInput) => ({ haproxy: dbHaproxy(input), couchdb: dbCouchDb(input) });

const self = member('db1/db', { self: true });
const desiredOf = (members: readonly EffectiveMember[], couchdb?: DbInput['couchdb']) =>
  dbDesired({
    view: view(members),
    config: {
      cluster: 'shop',
      privateAddress: '10.0.0.21',
      doorPort: 6984,
      peerPort: 6985,
      statsPort: 8405,
      httpPort: 15984,
    },
    certificates: { node: 'node', ca: 'ca', edge: undefined },
    settings: undefined,
    removed: [],
    leaving: false,
    couchdb,
  });

t.test(
  'failover goes to the other db nodes by their local-only door, never to oneself or an app node',
  async (t) => {
    const { haproxy } = desiredOf([self, member('db2/db'), member('app1/app')]);
    t.match(haproxy, {
      instance: 'db',
      appDoorPort: 6984,
      peerDoorPort: 6985,
      couchdbPort: 15984,
      statsPort: 8405,
    });
    t.match(haproxy.peers.servers, [{ name: 'db2', address: '10.0.0.22', port: 6985, duty: 'ready' }]);
    t.equal(haproxy.peers.servers.length, 1);
    t.equal(haproxy.peers.verifySuffix, 'db.shop.internal');
  },
);

t.test('what each state of a peer means for failover', async (t) => {
  const cases: [string, MemberCase, string][] = [
    ['alive', {}, 'ready'],
    ['serving', { record: { tags: { couchdb: 'serving' } } }, 'ready'],
    ['its CouchDB is still copying', { record: { tags: { couchdb: 'syncing 3/4' } } }, 'maint'],
    ['suspect', { state: 'suspect' }, 'ready'],
    ['dead', { state: 'dead' }, 'out-when-down'],
    ['leaving', { state: 'leaving' }, 'drain'],
    ['left', { state: 'left' }, 'maint'],
    ['in maintenance', { record: { maintenance: true } }, 'maint'],
    ['down', { record: { health: 'down' } }, 'maint'],
  ];
  for (const [what, of, duty] of cases)
    t.match(desiredOf([self, member('db2/db', of)]).haproxy.peers.servers, [{ duty }], what);
});

t.test(
  'databases are created and deleted while all members agree, and nobody decides before CouchDB was asked',
  async (t) => {
    const { databases } = desiredOf([self]).haproxy;
    t.equal(databases, undefined);
    t.match(desiredOf([self], { disagreement: undefined }).haproxy.databases, { given: true });
    t.same(
      desiredOf([self], { disagreement: { message: 'not connected: db3/db', subjects: ['db3/db'] } }).haproxy
        .databases,
      {
        given: false,
        why: 'not connected: db3/db',
        subjects: ['db3/db'],
      },
    );
  },
);

t.test('CouchDB of unreachable db nodes is not waited for long, never of this node', async (t) => {
  const members = [
    member('db1/db', { self: true, state: 'suspect' }),
    member('db2/db', { state: 'suspect' }),
    member('db3/db', { state: 'dead' }),
    member('db4/db'),
    member('db5/db', { state: 'left' }),
    member('app1/app', { state: 'dead' }),
  ];
  t.same(unheardNodes(view(members)), ['couchdb@10.0.0.22', 'couchdb@10.0.0.23']);
});

t.test('whose turn it is to restart CouchDB', async (t) => {
  const says = (word: string, more: MemberCase['record'] = {}): MemberCase => ({
    record: { ...more, tags: { 'couchdb-restart': word } },
  });
  const cases: [string, MemberCase, MemberCase, boolean][] = [
    ['all are well', {}, {}, true],
    ['one before waits for its turn', says('due'), {}, false],
    ['one behind waits for its turn', {}, says('due'), true],
    ['one behind was first', {}, says('now'), false],
    ['one before is under way', says('now'), {}, false],
    ['one before does not come back', says('now', { health: 'down' }), {}, false],
    ['a word of another version', {}, says('soon'), false],
    ['one is down', {}, { record: { health: 'down' } }, false],
    ['one is suspected and well', { state: 'suspect' }, {}, true],
    ['one is suspected and in its turn', { ...says('now'), state: 'suspect' }, {}, false],
    ['one died in its turn', { ...says('now'), state: 'dead' }, {}, true],
    ['one left', {}, { ...says('due', { health: 'down' }), state: 'left' }, true],
  ];
  for (const [what, before, behind, may] of cases) {
    const databases = [member('db1/db', before), member('db2/db', { self: true }), member('db3/db', behind)];
    t.equal(mayRestart(databases), may, what);
  }
  const all = ['db1/db', 'db2/db', 'db3/db'];
  const turns = all.map((own) =>
    mayRestart(all.map((name) => member(name, { ...says('due'), self: name === own }))),
  );
  t.same(turns, [true, false, false], 'settings that reach all together');
});

t.test('without the role’s secrets there is no CouchDB to configure, and HAProxy is', async (t) => {
  const { couchdb, haproxy } = desiredOf([self]);
  t.equal(couchdb, undefined);
  t.same(haproxy.peers.servers, []);
});
