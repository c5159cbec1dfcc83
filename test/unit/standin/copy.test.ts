import t from 'tap';
import { Copy } from '../../standin/couchdb/store/copy.ts';

function written(): { copy: Copy; lines: string[] } {
  const lines: string[] = [];
  const copy = new Copy('shards/00000000-ffffffff/db.1');
  copy.writeTo((line) => lines.push(line), true);
  return { copy, lines };
}

t.test('an edit must name a leaf, or none where nothing lives', async (t) => {
  const { copy } = written();
  const first = copy.edit({ id: 'a', deleted: false, body: {} });
  t.same(first, { rev: '1-967a00dff5e02add41819138abb3284d' });
  t.same(copy.edit({ id: 'a', deleted: false, body: {} }), { error: 'conflict' });
  t.same(copy.edit({ id: 'a', rev: '1-00', deleted: true, body: {} }), { error: 'conflict' });
  t.match(copy.edit({ id: 'a', rev: '1-967a00dff5e02add41819138abb3284d', deleted: true, body: {} }), {
    rev: /^2-/,
  });
  t.same(copy.get('a'), { missing: 'deleted', rev: '2-eec205a9d413992850a6e32678485900' });
  t.match(copy.edit({ id: 'a', deleted: false, body: {} }), { rev: '3-5570e8bbb34412db757c2df4bfa1099b' });
});

t.test('of two first revisions the greater hash wins, the other is in conflict', async (t) => {
  const { copy } = written();
  for (const hash of ['b'.repeat(32), 'a'.repeat(32)]) {
    copy.put({ id: 'x', revs: { start: 1, ids: [hash] }, deleted: false, body: { hash } });
  }
  t.match(copy.get('x'), { found: { rev: `1-${'b'.repeat(32)}`, conflicts: [`1-${'a'.repeat(32)}`] } });
});

t.test('its lines make the same copy again, whatever a crash cut off', async (t) => {
  const { copy, lines } = written();
  for (let i = 0; i < 20; i++) copy.edit({ id: `d${i % 7}`, deleted: false, body: { i } });
  copy.setSecurity({ members: { names: ['alice'] } });
  copy.setRevsLimit(50);
  copy.putLocal('_local/x', { seq: 1 });
  const again = new Copy(copy.name);
  for (const line of [...lines.slice(0, 5), '{"d":["cut', ...lines.slice(5)]) again.replay(line);
  t.same(again.info(), copy.info());
  t.same(again.rows({ docs: true }), copy.rows({ docs: true }));
  t.same(again.changes(0, 100), copy.changes(0, 100));
  t.same([again.security, again.revsLimit, again.local('_local/x')], [copy.security, 50, { seq: 1 }]);
});

t.test('a security object raises update_seq and shows no change', async (t) => {
  const { copy } = written();
  copy.edit({ id: 'a', deleted: false, body: {} });
  copy.setSecurity({});
  t.equal(copy.info().update_seq, 2);
  t.same(copy.changes(1, 10), []);
});
