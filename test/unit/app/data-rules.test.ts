import * as fc from 'fast-check';
import t from 'tap';
import { judgeBody, judgeData } from '../../../src/app/accounts/data-rules.ts';
import { networkOf, Window } from '../../../src/app/http/limits.ts';

const judge = (method: string, path: string, query = '') =>
  judgeData({ method, path, query: new URLSearchParams(query) });

t.test('what PouchDB asks is allowed', async (t) => {
  for (const [method, path, query] of [
    ['GET', '', ''],
    ['GET', '/note', 'rev=1-a&revs=true&open_revs=all&latest=true'],
    ['PUT', '/note', ''],
    ['DELETE', '/note', 'rev=1-a'],
    ['GET', '/_local/abc', ''],
    ['PUT', '/_local/abc', ''],
    ['POST', '/_bulk_docs', ''],
    ['POST', '/_bulk_get', 'revs=true&latest=true'],
    ['POST', '/_revs_diff', ''],
    ['GET', '/_all_docs', 'include_docs=true'],
    ['POST', '/_changes', 'filter=_doc_ids&feed=longpoll'],
  ] as const) {
    t.match(judge(method, path, query), { allowed: true }, `${method} ${path}`);
  }
});

t.test('a checkpoint may begin with any character that PouchDB writes', async (t) => {
  for (const first of 'azAZ09._') {
    const [name, path] = [`${first}ipCgRs_GFW6z.UzAR5pNqQ==`, `/_local/${first}ipCgRs_GFW6z.UzAR5pNqQ%3D%3D`];
    for (const method of ['GET', 'PUT']) t.match(judge(method, path), { allowed: true, path }, path);
    t.equal(judgeBody(path, { _id: `_local/${name}`, last_seq: 7 }), undefined, path);
  }
});

t.test('the rest is refused', async (t) => {
  for (const [method, path] of [
    ['DELETE', ''],
    ['PUT', ''],
    ['POST', ''],
    ['GET', '/_design/x'],
    ['GET', '/%5fdesign%2fx'],
    ['PUT', '/_design%2Fx'],
    ['GET', '/_security'],
    ['POST', '/_find'],
    ['POST', '/_purge'],
    ['GET', '/_shards'],
    ['GET', '/_local'],
    ['DELETE', '/_local/abc'],
    ['GET', '/_local/'],
    ['GET', '/_local/..'],
    ['GET', '/_local/%2e%2e'],
    ['GET', '/_local/a%2f..%2f..%2f_security'],
    ['GET', '/_local/a/_b'],
    ['GET', `/_local/${'x'.repeat(513)}`],
    ['GET', '/note/attachment'],
    ['COPY', '/note'],
    ['GET', '/..'],
    ['GET', '/%2e%2e'],
    ['GET', '/a%2f..%2f..%2f_users'],
    ['GET', '/%'],
    ['GET', '/%E0%A4%A'],
    ['GET', '//_users'],
    ['GET', '/a%00b'],
    ['GET', `/${'x'.repeat(513)}`],
  ] as const) {
    t.match(judge(method, path), { allowed: false }, `${method} ${path.slice(0, 30)}`);
  }
  t.match(judge('GET', '/_changes', 'filter=app/mine'), { allowed: false });
  t.match(judge('GET', '/_changes', 'filter=_view&view=x/y'), { allowed: false });
});

t.test('a feed has our heartbeat, and parameters that we do not know are dropped', async (t) => {
  const feed = judge('GET', '/_changes', 'feed=continuous&heartbeat=1&timeout=1&r=3&w=3&since=now');
  t.match(feed, { allowed: true, feed: true, query: 'feed=continuous&heartbeat=25000&since=now' });
  t.match(judge('GET', '/note', 'r=3&w=3&slots=1'), { query: '' });
});

t.test('whatever is asked, what is passed on stays below the database', async (t) => {
  fc.assert(
    fc.property(fc.constantFrom('GET', 'PUT', 'POST', 'DELETE'), fc.webPath(), (method, path) => {
      const verdict = judge(method, path);
      if (!verdict.allowed || verdict.path === '') return;
      const resolved = new URL(`http://db/userdb-1${verdict.path}`).pathname;
      t.ok(resolved.startsWith('/userdb-1/') && !resolved.includes('_design'), resolved);
    }),
  );
});

t.test('a body holds no document that the path could not name', async (t) => {
  t.equal(judgeBody('/_bulk_docs', { docs: [{ _id: 'a' }, {}] }), undefined);
  for (const docs of [undefined, {}, [{ _id: '_design/x' }], [{ _id: 7 }], ['x'], [null], [{ _id: '' }]]) {
    t.ok(judgeBody('/_bulk_docs', { docs }), JSON.stringify(docs) ?? 'undefined');
  }
  t.equal(judgeBody('/_local/a%2Fb', { _id: '_local/a/b', seq: 1 }), undefined, 'a checkpoint of PouchDB');
  t.equal(judgeBody('/_local/a', { seq: 1 }), undefined);
  for (const doc of [{ _id: 'a' }, { _id: '_local/b' }, { _id: '_design/a' }, { _id: 1 }, null, [], 'x'])
    t.ok(judgeBody('/_local/a', doc), JSON.stringify(doc));
  t.ok(judgeBody('/a', null));
  t.ok(judgeBody('/a', []));
});

t.test('a network is an IPv4 address or the /64 of a customer', async (t) => {
  t.equal(networkOf('192.0.2.1', '127.0.0.1'), '192.0.2.1');
  t.equal(networkOf('6.6.6.6, 192.0.2.1', '127.0.0.1'), '192.0.2.1', 'only the last hop is the edge’s word');
  t.equal(networkOf(undefined, '127.0.0.1'), '127.0.0.1');
  t.equal(networkOf('2001:db8:1:2:3:4:5:6', ''), '2001:db8:1:2::/64');
  t.equal(networkOf('2001:db8::1', ''), '2001:db8:0:0::/64');
  t.equal(networkOf('2001:DB8:1:2::', ''), '2001:db8:1:2::/64');
});

t.test('a window counts what is recent', async (t) => {
  const window = new Window(2, 1000);
  t.equal(window.waitMs('a', 0), 0);
  window.add('a', 0);
  window.add('a', 100);
  t.equal(window.waitMs('a', 100), 900);
  t.equal(window.waitMs('b', 100), 0);
  t.equal(window.waitMs('a', 1000), 0);
  window.clear('a');
  t.equal(window.waitMs('a', 100), 0);
});
