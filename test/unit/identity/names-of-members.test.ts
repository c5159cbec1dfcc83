import t from 'tap';
import type { Roster } from '../../../src/daemon/identity/roster/roster.ts';
import { Names } from '../../../src/daemon/identity/roster/names.ts';
import { member, viewOf } from '../notification/views.ts';

const peer = (letter: string): string => `12D3KooW${letter.repeat(44)}`;
const db1 = { peerId: peer('a'), name: 'db1/db', host: 'db1' };
const roster = {
  get: (id: string) => (id === db1.peerId ? db1 : undefined),
  members: () => [db1],
  revocations: () => [{ peerId: peer('b'), name: 'db2/db', by: { peerId: db1.peerId } }],
} as unknown as Roster;
const names = new Names(roster, () => viewOf([member('app9/app', { record: { peerId: peer('c') } })]));

t.test('a PeerId in a text becomes a name, also of who is out or is known by its record alone', async (t) => {
  t.equal(names.of('nobody'), 'nobody');
  t.equal(
    names.named(`${db1.peerId} accused ${peer('b')} and ${peer('c')}.`),
    'db1/db accused db2/db and app9/app.',
  );
  t.equal(names.named(`by ${peer('d')}`), `by ${peer('d')}`);
  t.equal(names.removerOf(peer('b')), 'db1/db');
  t.equal(names.removerOf(peer('d')), 'a removed authority');
});
