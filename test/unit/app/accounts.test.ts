import * as fc from 'fast-check';
import t from 'tap';
import {
  type Account,
  isSessionOf,
  MAX_SIGNED_OUT,
  mergeAccounts,
  withSignedOut,
} from '../../../src/app/accounts/account.ts';
import { parseAddress } from '../../../src/app/accounts/address.ts';
import {
  cookieIn,
  mustReissue,
  openSession,
  sealSession,
  type Session,
} from '../../../src/app/accounts/cookie.ts';
import { KeyRing } from '../../../src/app/accounts/keys.ts';
import { readMailToken, signMailToken, TOKEN_LIFE_MS } from '../../../src/app/accounts/mail-token.ts';
import { ACCOUNT_NAME, accountName, addressDocumentId, databaseOf } from '../../../src/app/accounts/names.ts';
import { passwordProblem } from '../../../src/app/accounts/password-rules.ts';
import { BusyError, PasswordHashes } from '../../../src/app/store/hashing.ts';
import { ring } from './keys.ts';

const DAY_MS = 24 * 3600_000;
const NOW = 1_800_000_000_000;
const NAME = accountName(ring(), 'anna@example.org', 0);

t.test('an address is one account however it is typed', async (t) => {
  const same = ['anna@example.org', 'ANNA@Example.ORG', '  anna@example.org ', 'ａnna@example.org'];
  for (const text of same) t.equal(parseAddress(text)?.identity, 'anna@example.org', text);
  t.equal(
    parseAddress('Anna+news@example.org')?.identity,
    'anna+news@example.org',
    'a tag is another mailbox',
  );
  t.equal(parseAddress('jörg@bücher.example')?.deliver, 'jörg@xn--bcher-kva.example');
  t.equal(parseAddress('jo\u0308rg@bücher.example')?.identity, parseAddress('jörg@bücher.example')?.identity);
});

t.test('a password of an account that is not there takes the same work', async (t) => {
  const hashes = new PasswordHashes(ring());
  const stored = await hashes.hash('four green turtles', 'a 0');
  t.ok(await hashes.verify('four green turtles', async () => stored));
  const workOf = async (secret: string | undefined): Promise<number> => {
    const before = process.cpuUsage();
    for (let n = 0; n < 8; n += 1) t.notOk(await hashes.verify(`wrong ${n}`, async () => secret));
    const { user, system } = process.cpuUsage(before);
    return user + system;
  };
  await workOf(stored);
  const [known, unknown, broken] = [await workOf(stored), await workOf(undefined), await workOf('no hash')];
  for (const each of [unknown, broken])
    t.ok(each > known / 5 && each < known * 5, `${each} µs of CPU time, and ${known} with an account`);
});

t.test(
  'a flood of passwords is refused before the databases are asked, and leaves no place taken',
  async (t) => {
    const hashes = new PasswordHashes(ring());
    const asked = Promise.withResolvers<string | undefined>();
    let lookups = 0;
    const find = (): Promise<string | undefined> => {
      lookups += 1;
      return asked.promise;
    };
    const all = Array.from({ length: 120 }, () => hashes.verify('wrong', find));
    const settled = Promise.allSettled(all);
    // 98 are refused although no answer has come yet.
    const refused = await Promise.allSettled(all.slice(22));
    t.ok(refused.every((each) => each.status === 'rejected' && each.reason instanceof BusyError));
    t.equal(lookups, 22);
    asked.reject(new Error('the databases do not answer'));
    await settled;
    t.notOk(await hashes.verify('wrong', async () => undefined), 'every place is free again');
    const next = await Promise.allSettled(
      Array.from({ length: 23 }, () => hashes.verify('wrong', async () => undefined)),
    );
    t.same(next.filter(({ status }) => status === 'rejected').length, 1);
  },
);

t.test('what is no address is refused', async (t) => {
  for (const text of [
    '',
    'anna',
    '@example.org',
    'anna@',
    'anna@localhost',
    'a b@example.org',
    'anna@exa mple.org',
    '-oQ/tmp@example.org',
    'anna@example.org\nBcc: all@example.org',
    'anna@example.org, bert@example.org',
    '"anna"@example.org',
    'anna@[192.0.2.1]',
    'an..na@example.org',
    `${'a'.repeat(65)}@example.org`,
    `anna@${'a'.repeat(250)}.org`,
  ]) {
    t.equal(parseAddress(text), undefined, JSON.stringify(text).slice(0, 60));
  }
});

t.test('names follow from the address alone, under the first key for ever', async (t) => {
  t.match(NAME, ACCOUNT_NAME);
  t.equal(accountName(ring(3), 'anna@example.org', 0), NAME);
  t.not(accountName(ring(), 'anna@example.org', 1), NAME);
  t.not(accountName(ring(), 'bert@example.org', 0), NAME);
  t.notMatch(addressDocumentId(ring(), 'anna@example.org'), /anna|example/);
  t.equal(databaseOf('app'), 'userdb-617070');
});

t.test('a mailed token opens what it was made for until it ends', async (t) => {
  const token = { purpose: 'reset', account: NAME, epoch: 3 } as const;
  const text = signMailToken(ring(), token, NOW);
  t.same(readMailToken(ring(), text, NOW + TOKEN_LIFE_MS.reset), token);
  t.equal(readMailToken(ring(), text, NOW + TOKEN_LIFE_MS.reset + 1), undefined, 'expired');
  t.equal(
    readMailToken(ring(2), text, NOW),
    undefined,
    'a key was added: who was removed knows the older one',
  );
  t.equal(
    readMailToken(new KeyRing([{ id: 'k1', secret: Buffer.alloc(32, 9) }]), text, NOW),
    undefined,
    'foreign',
  );
  const change = {
    purpose: 'change-email',
    account: NAME,
    epoch: 1,
    from: 'a@b.cd',
    email: 'c@d.ef',
  } as const;
  t.same(readMailToken(ring(), signMailToken(ring(), change, NOW), NOW), change);
});

t.test('no change of a token or a cookie is accepted', async (t) => {
  const session: Session = { account: NAME, id: 'ab', epoch: 0, bornMs: NOW, issuedMs: NOW };
  const texts = [
    [
      signMailToken(ring(), { purpose: 'register', email: 'a@b.cd' }, NOW),
      (x: string) => readMailToken(ring(), x, NOW),
    ],
    [sealSession(ring(), session), (x: string) => openSession(ring(), x, NOW)],
  ] as const;
  for (const [text, read] of texts) {
    t.ok(read(text));
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.constantFrom(...'aZ09._-#'), (at, one) => {
        const changed = text.slice(0, at) + one + text.slice(at + 1);
        // The last character of base64 carries bits that mean nothing.
        if (changed === text || at === text.length - 1) return;
        if (read(changed) !== undefined) throw new Error(`accepted: ${changed}`);
      }),
    );
    fc.assert(fc.property(fc.string(), (any) => read(any) === undefined));
  }
});

t.test('a session ends after 7 idle days, after 30 in all, and is reissued once a day', async (t) => {
  const session: Session = { account: NAME, id: 'ab', epoch: 0, bornMs: NOW, issuedMs: NOW };
  const text = sealSession(ring(), session);
  t.same(openSession(ring(), text, NOW + 7 * DAY_MS), session);
  t.equal(openSession(ring(), text, NOW + 7 * DAY_MS + 1), undefined);
  const late = { ...session, issuedMs: NOW + 29 * DAY_MS };
  t.ok(openSession(ring(), sealSession(ring(), late), NOW + 30 * DAY_MS));
  t.equal(openSession(ring(), sealSession(ring(), late), NOW + 30 * DAY_MS + 1), undefined);
  t.equal(openSession(ring(2), text, NOW), undefined, 'a key was added');
  t.ok(openSession(ring(), text, NOW - 1800_000), 'a clock that is half an hour behind');
  t.equal(openSession(ring(), text, NOW - DAY_MS), undefined, 'from tomorrow');
  t.notOk(mustReissue(session, NOW + DAY_MS));
  t.ok(mustReissue(session, NOW + DAY_MS + 1));
  t.equal(cookieIn('a=b; __Host-s=x.y=z; c'), 'x.y=z');
  t.equal(cookieIn('my__Host-s=x'), undefined);
});

const account = (epoch: number, part: Partial<Account> = {}): Account => ({
  name: NAME,
  email: 'anna@example.org',
  epoch,
  secret: `s${epoch}`,
  signedOut: [],
  keyId: 'k1',
  disabled: false,
  ...part,
});

t.test('of conflicting accounts the higher epoch wins, and ended sessions stay ended', async (t) => {
  const ended = (id: string) => ({ signedOut: [{ id, untilMs: NOW + 1 }] });
  const versions = [
    { rev: '3-a', account: account(1, ended('one')) },
    { rev: '2-b', account: account(2, { signedOut: [{ id: 'old', untilMs: NOW - 1 }] }) },
    { rev: '3-c', account: account(1, { ...ended('two'), disabled: true }) },
  ];
  const merged = mergeAccounts(versions, NOW);
  t.match(merged, {
    rev: '2-b',
    losers: ['3-c', '3-a'],
    account: { epoch: 2, secret: 's2', disabled: true },
  });
  t.same(merged?.account.signedOut.map(({ id }) => id).sort(), ['one', 'two']);
  t.equal(mergeAccounts([], NOW), undefined);
  fc.assert(
    fc.property(fc.shuffledSubarray(versions, { minLength: 3 }), (mixed) => {
      t.same(mergeAccounts(mixed, NOW), merged);
    }),
    { numRuns: 6 },
  );
});

t.test('a signed-out session is over, and a list that is full ends all', async (t) => {
  const session = { id: 'mine', epoch: 0 };
  t.ok(isSessionOf(account(0), session));
  t.notOk(isSessionOf(account(1), session));
  t.notOk(isSessionOf(account(0, { disabled: true }), session));
  t.notOk(isSessionOf(withSignedOut(account(0), 'mine', NOW + 5, NOW), session));
  let now = account(0);
  for (let n = 0; n <= MAX_SIGNED_OUT; n += 1) now = withSignedOut(now, `s${n}`, NOW + 5, NOW);
  t.match(now, { epoch: 1, signedOut: [] });
});

t.test('a password has a length and is not among the first that are tried', async (t) => {
  const context = { minLength: 12, email: 'anna.smith@example.org', siteName: 'Bookshop' };
  const cases: readonly [string, string | undefined][] = [
    ['four green turtles', undefined],
    ['ünïcödé wörds hére', undefined],
    ['👩‍👩‍👧 🐢 🍏 🎻 🚲 ok', undefined],
    ['elevenchars', 'too-short'],
    ['x'.repeat(129), 'too-long'],
    ['anna.smith2026', 'contains-address'],
    ['my anna.smith@example.org', 'contains-address'],
    ['bookshop-forever', 'contains-site'],
    ['aaaaaaaaaaaaaa', 'repeats'],
    ['abcdeabcdeabcde', 'repeats'],
    ['password12345', 'common'],
    ['P@ssw0rdP@ssw0rd', 'repeats'],
    ['letmeinpassword', 'common'],
    ['1234567890123', 'common'],
    ['qwertyuiopas', 'common'],
    ['Willkommen2026!', 'common'],
  ];
  for (const [password, problem] of cases)
    t.equal(passwordProblem(password, context), problem, password.slice(0, 20));
});
