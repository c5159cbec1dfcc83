import t from 'tap';
import type { NodeRecord } from '../../../src/daemon/membership/types.ts';
import { configFiles } from '../../../src/plugins/couchdb/config.ts';
import { render } from '../../../src/plugins/haproxy/render.ts';
import { dbCouchDb, dbHaproxy } from '../../../src/roles/db.ts';
import { appDesired, appInput, dbInput, member, view } from './cases.ts';

/** What a member that was taken over may write where its own words are free, to make a peer run or write something. */
const HOSTILE = [
  '/etc/passwd',
  '../../../../root/.ssh/authorized_keys',
  '$(touch /tmp/x)',
  '`reboot`',
  '; systemctl stop haproxy',
  'http://192.0.2.66/payload',
  'lua-load /tmp/x.lua',
  '"}\nglobal\n  lua-load /tmp/x.lua\n',
];
/** Every field of a record that is not held to its owner's certificate. */
const FREE: readonly ((text: string) => Partial<NodeRecord>)[] = [
  (text) => ({ version: text }),
  (text) => ({ startId: text }),
  (text) => ({ settingsDigest: text }),
  (text) => ({ tags: { rack: text } }),
  (text) => ({ tags: { [text]: 'x' } }),
  (text) => ({ tags: { couchdb: text } }),
  (text) => ({ services: [{ name: text, health: 'up' }] }),
];

const layout = { directory: '/var/lib/x/app', statsSocket: '/run/x/stats.sock' };

const pem = (text: string): string =>
  `-----BEGIN CERTIFICATE-----\n${Buffer.from(text).toString('base64')}\n-----END CERTIFICATE-----\n`;
const certificates = { node: pem('node'), ca: pem('ca'), edge: undefined };

/**
 * All bytes that nodes of both roles would write for their programs with such a record of app2 and db2 in their view.
 */
function written(record: Partial<NodeRecord>): string {
  const others = [member('app2/app', { record }), member('db2/db', { record })];
  const input = appInput([member('app1/app', { self: true }), ...others]);
  const app = appDesired({ ...input, certificates });
  const db = dbInput(view([member('db1/db', { self: true }), ...others]), certificates);
  const couchdb = dbCouchDb(db);
  if (couchdb === undefined) throw new Error('settings were given');
  const files = [
    ...[app.haproxy, dbHaproxy(db)].flatMap((desired) => render(desired, layout).files),
    ...configFiles(couchdb, '/var/lib/x/couchdb', []),
  ];
  return [...files.map(({ name, content }) => `${name}\n${content}`), JSON.stringify(app.bird)].join('\n');
}

t.test('no text of a member becomes a file, a path or a command of another node', async (t) => {
  const plain = written({});
  t.match(plain, /10\.0\.0\.12:8443/, 'the member is in what is written');
  t.match(plain, /frontend[^]*\[chttpd\][^]*"addresses":/, 'for HAProxy, CouchDB and BIRD');
  for (const record of FREE) {
    const harmless = written(record('harmless'));
    for (const text of HOSTILE) {
      const bytes = written(record(text));
      t.equal(bytes, harmless, `${Object.keys(record(text)).join()}: ${JSON.stringify(text)}`);
      t.notOk(bytes.includes(text.trim()));
    }
  }
});

t.test('where a name or address that is no such thing got past all else, nothing is written', async (t) => {
  for (const record of [{ name: 'app2\nglobal/app' }, { address: '10.0.0.12 check\nglobal' }]) {
    t.throws(() => written(record), Object.keys(record).join());
  }
});
