import { randomBytes } from 'node:crypto';
import t from 'tap';
import { KeyRing } from '../../../src/app/accounts/keys.ts';
import { Accounts } from '../../../src/app/store/accounts.ts';
import { Couch } from '../../../src/app/store/couch.ts';

const secret = (): Buffer => randomBytes(32);
const old = { id: 'k1', secret: secret() };
const fresh = { id: 'k2', secret: secret() };
const passwordOf = (key: typeof old): string =>
  new KeyRing([key]).mac('database-password', 'anna', key.id).toString('hex');

/** CouchDB knows one password of `anna`. Returns what asks in her name, and the passwords that were tried. */
function scene(keys: readonly (typeof old)[], taken: () => string) {
  const tried: string[] = [];
  let nowMs = 0;
  const app = { name: 'app', password: 'x' };
  const couch = new Couch('http://127.0.0.1:1');
  const accounts = new Accounts({ couch, keys: new KeyRing(keys), app, nowMs: () => nowMs });
  const ask = (keyId: string) =>
    accounts.asOwner(
      { name: 'anna', keyId },
      async ({ password }) => {
        tried.push(password);
        return password === taken() ? 200 : 401;
      },
      (status) => status === 401,
    );
  return { ask, tried, wait: (ms: number) => (nowMs += ms) };
}

t.test('with one key nothing is tried twice: five wrong passwords lock an account', async (t) => {
  const { ask, tried } = scene([old], () => 'another');
  t.equal(await ask('k1'), 401);
  t.same(tried, [passwordOf(old)]);
});

t.test('a db node that does not know the new password yet takes the former', async (t) => {
  let taken = passwordOf(old);
  const { ask, tried, wait } = scene([old, fresh], () => taken);
  t.equal(await ask('k2'), 200);
  t.same(tried.splice(0), [passwordOf(fresh), passwordOf(old)]);
  for (let n = 0; n < 6; n += 1) t.equal(await ask('k2'), 200);
  t.notOk(tried.splice(0).includes(passwordOf(fresh)), 'what worked is tried first');
  taken = passwordOf(fresh);
  t.equal(await ask('k2'), 200);
  t.same(tried.splice(0), [passwordOf(old), passwordOf(fresh)]);
  t.equal(await ask('k2'), 200);
  t.same(tried.splice(0), [passwordOf(fresh)]);
  taken = passwordOf(old);
  await ask('k2');
  tried.splice(0);
  wait(6000);
  taken = passwordOf(fresh);
  await ask('k2');
  t.same(tried.splice(0), [passwordOf(fresh)], 'after five seconds the account’s own key comes first again');
});

t.test('another app node has set the new password already', async (t) => {
  const { ask, tried } = scene([old, fresh], () => passwordOf(fresh));
  t.equal(await ask('k1'), 200);
  t.same(tried, [passwordOf(old), passwordOf(fresh)]);
});

t.test('a refusal of both is the answer', async (t) => {
  const { ask, tried } = scene([old, fresh], () => 'another');
  t.equal(await ask('k2'), 401);
  t.equal(tried.length, 2);
});
