import { pbkdf2Sync } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { IdentityError } from '../../../src/daemon/identity/errors.ts';
import {
  adminHash,
  answerSecretsRequest,
  createSecrets,
  decodeSecrets,
  encodeSecrets,
  notRolledFor,
  outranks,
  rankOf,
  rollAppKeys,
  rollSecrets,
  SecretsStore,
} from '../../../src/daemon/identity/secrets.ts';
import { createNodeKey } from '../../../src/daemon/identity/keys/node-key.ts';
import { codeOf } from './cluster.ts';

const own = await createSecrets();
const [db, app] = [
  { role: 'db', peerId: createNodeKey().peerId },
  { role: 'app', peerId: createNodeKey().peerId },
] as const;

t.test('the admin hash is what CouchDB computes itself', async (t) => {
  const [, derived, salt = '', rounds] = /^-pbkdf2:sha256-(\w+),(\w+),(\d+)$/.exec(own.admin.hash) ?? [];
  t.equal(rounds, '600000');
  t.equal(pbkdf2Sync(own.admin.password, salt, 600_000, 32, 'sha256').toString('hex'), derived);
});

t.test('a db node gets all secrets, an app node its own credentials, and never the cookie', async (t) => {
  t.strictSame(answerSecretsRequest(db, own), own);
  const answer = answerSecretsRequest(app, own);
  const { app: login, appKeys } = own;
  t.strictSame(answer, { version: 1, kind: 'app', generation: 1, rank: rankOf(own), app: login, appKeys });
  const sent = Buffer.from(encodeSecrets(answer ?? own)).toString();
  for (const secret of [own.cookie, own.authSecret, own.admin.password, own.admin.hash])
    t.notMatch(sent, secret);
});

t.test('a node without secrets sends none', async (t) => {
  t.equal(answerSecretsRequest(db, undefined), undefined);
  const theirs = answerSecretsRequest(app, own);
  t.equal(answerSecretsRequest(db, theirs), undefined, 'an app node knows nothing to tell');
  t.equal(answerSecretsRequest(app, theirs), undefined);
});

t.test(
  'a rotation changes the credentials that a removed db node knew, and it does not get the new ones',
  async (t) => {
    t.strictSame(notRolledFor(own, [db.peerId]), [db.peerId]);
    const rolled = rollSecrets(own, [db.peerId]);
    t.strictSame(notRolledFor(rolled, [db.peerId, app.peerId]), [app.peerId]);
    t.equal(answerSecretsRequest(db, rolled), undefined, 'also by a node that has not heard of its removal');
    t.strictSame(answerSecretsRequest({ ...db, peerId: createNodeKey().peerId }, rolled), rolled);
    t.equal(rolled.generation, 2);
    t.not(rolled.cookie, own.cookie);
    t.not(rolled.authSecret, own.authSecret);
    t.equal(rolled.admin.hash, own.admin.hash);
  },
);

t.test(
  'with each removal the ring gets another key, keeps the first for ever and does not grow',
  async (t) => {
    t.equal(own.appKeys.length, 1);
    const rolled = rollAppKeys(own, [app.peerId]);
    t.strictSame(notRolledFor(rolled, [app.peerId]), []);
    t.equal(answerSecretsRequest(app, rolled), undefined, 'the removed one is not told');
    t.strictSame(rolled.appKeys.slice(0, 1), own.appKeys);
    t.equal(rolled.appKeys.length, 2);
    t.equal(rolled.cookie, own.cookie, 'an app node never knew the cookie');
    t.equal(rollSecrets(own, [db.peerId]).appKeys.length, 2, 'a db node knows the ring as well');
    t.not(rankOf(rolled), rankOf({ ...rolled, appKeys: own.appKeys }), 'who has other keys says so');
    let many = own;
    for (let times = 0; times < 200; times += 1) many = rollAppKeys(many, [createNodeKey().peerId]);
    t.equal(many.appKeys.length, 64);
    t.strictSame(many.appKeys.slice(0, 1), own.appKeys);
    t.equal(new Set(many.appKeys.map(({ id }) => id)).size, 64);
    t.strictSame(decodeSecrets(encodeSecrets(many)), many);
  },
);

t.test('an app node takes a ring that was made at once on the other side of a cut, if it wins', async (t) => {
  const [one, other] = [rollAppKeys(own, []), rollAppKeys(own, [])].map((each) =>
    answerSecretsRequest(app, each),
  );
  if (one === undefined || other === undefined) throw new Error('an app node is answered');
  const kept = [];
  for (const order of [
    [one, other],
    [other, one],
  ]) {
    const store = new SecretsStore(t.testdir(), 'app');
    for (const each of order) await store.put(each);
    kept.push(store.get());
  }
  t.strictSame(kept[0], kept[1]);
});

t.test('secrets survive their encoding; anything else is refused without being quoted', async (t) => {
  t.strictSame(decodeSecrets(encodeSecrets(own)), own);
  const bent = JSON.stringify({ ...own, cookie: `${own.cookie.slice(1)}"` });
  for (const bad of ['', '{}', bent, JSON.stringify(own).slice(0, -2), ' '.repeat(5000), '['.repeat(4000)]) {
    t.equal(await codeOf(() => decodeSecrets(Buffer.from(bad))), 'secrets-malformed');
  }
  try {
    decodeSecrets(Buffer.from(bent));
  } catch (error) {
    t.ok(error instanceof IdentityError);
    t.equal((error as Error).cause, undefined);
    t.notMatch(String(error), own.cookie.slice(5, 20));
  }
});

t.test('the store keeps the highest generation, 0600', async (t) => {
  const directory = t.testdir();
  const store = new SecretsStore(directory, 'db');
  await store.load();
  t.equal(store.get(), undefined);
  t.ok(await store.put(rollSecrets(own, [])));
  t.notOk(await store.put(own), 'an older one is not taken');
  const path = join(directory, 'secrets.json');
  t.equal((await stat(path)).mode & 0o777, 0o600);
  const again = new SecretsStore(directory, 'db');
  await again.load();
  t.strictSame(again.get(), store.get());
  await writeFile(path, (await readFile(path, 'utf8')).slice(0, 100));
  t.equal(await codeOf(() => new SecretsStore(directory, 'db').load()), 'state-file-damaged');
});

t.test('an app node does not take the secrets of a db node, whoever sends them', async (t) => {
  const store = new SecretsStore(t.testdir(), 'app');
  t.equal(await codeOf(() => store.put(own)), 'secrets-other-role');
  const answer = answerSecretsRequest(app, own);
  t.ok(answer !== undefined && (await store.put(answer)));
});

t.test('the admin hash is the one that CouchDB made of the same password and salt', async (t) => {
  t.equal(
    await adminHash('adminpw', '0925b4124357de88b424b5c5ac57f46e'),
    '-pbkdf2:sha256-e615d84cd141b2ffcb2e23064049b0ed0648dec56c8721c07a21c152e2538a8a,' +
      '0925b4124357de88b424b5c5ac57f46e,600000',
    'as a release of 3.5.0 kept it',
  );
});

t.test('of secrets made at once on both sides of a cut the same ones win everywhere', async (t) => {
  const [one, other] = [rollSecrets(own, []), rollSecrets(own, [])];
  t.not(rankOf(one), rankOf(other));
  t.equal(outranks(rankOf(one), rankOf(other)), !outranks(rankOf(other), rankOf(one)));
  const kept = [];
  for (const order of [
    [one, other],
    [other, one],
  ]) {
    const store = new SecretsStore(t.testdir(), 'db');
    for (const each of order) await store.put(each);
    kept.push(store.get());
  }
  t.strictSame(kept[0], kept[1]);
  t.ok(outranks('10-00000000', '9-ffffffff'), 'the generation is a number');
  for (const odd of ['', 'x', '1-', '1-zzzzzzzz', '99999999999999-00000000'])
    t.notOk(outranks(odd, rankOf(own)), `“${odd}” is no rank`);
  t.notMatch(rankOf(own), own.cookie.slice(0, 6));
});
