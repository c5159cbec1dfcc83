import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import {
  decodeSite,
  encodeSite,
  type Site,
  SITE_BYTES,
  SiteStore,
  siteWord,
} from '../../../src/daemon/identity/site.ts';
import { mayHave } from '../../../src/daemon/identity/site-keeper.ts';

const EMPTY: Site = { generation: 0, notBeforeMs: 0, recent: [], without: [] };
const KEY = `-----BEGIN PRIVATE KEY-----\n${'k'.repeat(64)}\n-----END PRIVATE KEY-----\n`;
const site: Site = {
  ...EMPTY,
  generation: 4,
  account: { directory: 'https://ca.example/dir', key: KEY, url: 'https://ca.example/acct/1' },
  current: {
    names: ['shop.example'],
    key: KEY,
    chain: 'chain',
    fingerprint: 'ab'.repeat(32),
    fromMs: 1,
    endMs: 2,
    revoked: false,
  },
  next: {
    names: ['shop.example'],
    key: KEY,
    sinceMs: 3,
    answers: [{ name: '_acme-challenge.shop.example', value: 'a_-B'.repeat(10) + 'abc' }],
  },
  recent: [{ atMs: 3, names: 'shop.example', outcome: 'issued' }],
};
const isMine = (text: string): boolean => text.includes('kkkk');

t.test('a bundle is sent and stored unchanged, 0600, and its digest reveals nothing of it', async (t) => {
  t.strictSame(decodeSite(encodeSite(site)), site);
  const directory = t.testdir();
  const store = new SiteStore(directory, EMPTY);
  t.equal(store.word, '');
  t.equal(await store.change(() => site), true);
  t.equal(await store.change((now) => ({ ...now })), false, 'the same again is not written');
  t.equal((await stat(join(directory, 'site.json'))).mode & 0o777, 0o600);
  const again = new SiteStore(directory, EMPTY);
  t.equal(await again.load(), undefined);
  t.strictSame(again.get(), site);
  t.equal(again.word, store.word);
  t.match(again.word, /^4-[0-9a-f]{16}$/);
  t.not(siteWord({ ...site, notBeforeMs: 9 }), again.word, 'another bundle, another word');
  t.equal(
    siteWord(JSON.parse(JSON.stringify({ ...site, next: { ...site.next, url: undefined } })) as Site),
    again.word,
  );
});

t.test(
  'an answer for a CA is a digest at its own name, so that no bundle puts another TXT into the zone',
  (t) => {
    const of = (more: object): Uint8Array =>
      encodeSite({
        ...site,
        next: { ...site.next, answers: [{ ...site.next?.answers?.[0], ...more }] },
      } as Site);
    t.ok(decodeSite(of({})));
    for (const more of [
      { name: 'shop.example' },
      { name: '_acme-challenge.shop.example\nsend' },
      { name: '_acme-challenge' },
      { value: 'v=spf1 +all' },
      { value: `${'a'.repeat(43)}"` },
    ])
      t.throws(() => decodeSite(of(more)), { code: 'site-malformed' }, JSON.stringify(more));
    t.end();
  },
);

t.test('changes that come at once are made one after the other, and none is lost', async (t) => {
  const store = new SiteStore(t.testdir(), EMPTY);
  await Promise.all(
    Array.from({ length: 20 }, () => store.change((now) => ({ ...now, generation: now.generation + 1 }))),
  );
  t.equal(store.get().generation, 20);
  await t.rejects(
    store.change(() => {
      throw new Error('a fault');
    }),
    { message: 'a fault' },
  );
  t.equal(await store.change((now) => ({ ...now, generation: 21 })), true, 'a fault stops none that follows');
});

t.test(
  'a file that cannot be read is set aside, reported in one sentence, and never overwritten',
  async (t) => {
    const text = JSON.stringify(site);
    for (const bad of ['', text.slice(0, -1), '[]', text.replace('"generation":4', '"generation":"x"')]) {
      const directory = t.testdir();
      await writeFile(join(directory, 'site.json'), bad, { mode: 0o600 });
      const store = new SiteStore(directory, EMPTY);
      const said = await store.load();
      t.match(said, { code: 'site-file-damaged', next: /another app node/ });
      t.notOk(isMine(`${said?.message} ${said?.next} ${String(said?.cause)}`), 'no key in it');
      t.equal(await readFile(join(directory, 'site.json.damaged'), 'utf8'), bad);
      t.strictSame(store.get(), EMPTY);
      await store.change(() => site);
      t.same((await readdir(directory)).sort(), ['site.json', 'site.json.damaged']);
    }
  },
);

t.test('a disk that refuses leaves what was held', async (t) => {
  const directory = t.testdir();
  const store = new SiteStore(directory, EMPTY);
  await store.change(() => site);
  const nowhere = new SiteStore(join(directory, 'nowhere'), EMPTY);
  await t.rejects(
    nowhere.change(() => site),
    { code: 'state-file-missing' },
  );
  t.strictSame(nowhere.get(), EMPTY);
  t.equal(nowhere.word, '', 'what is not on the disk is not said to others');
});

t.test('data from a peer is bounded and checked, and a refusal does not quote it', (t) => {
  const cases: readonly (readonly [string, unknown])[] = [
    ['no object', 'x'],
    ['an unknown outcome', { ...site, recent: [{ atMs: 1, names: '', outcome: 'lost' }] }],
    ['65 outcomes', { ...site, recent: Array.from({ length: 65 }, () => site.recent[0]) }],
    ['a time that never comes', { ...site, notBeforeMs: 1e300 }],
    ['no names', { ...site, next: { ...site.next, names: [] } }],
    ['a long key', { ...site, account: { key: 'k'.repeat(4097) } }],
    ['a fingerprint of another form', { ...site, current: { ...site.current, fingerprint: 'AB' } }],
    ['too long', { ...site, padding: 'x'.repeat(SITE_BYTES) }],
  ];
  for (const [what, value] of cases) {
    try {
      decodeSite(Buffer.from(JSON.stringify(value)));
      t.fail(what);
    } catch (error) {
      t.match(error, { code: 'site-malformed' }, what);
      t.notOk(isMine(String(error)), what);
    }
  }
  t.end();
});

t.test('app nodes have it: no db node, nobody who was removed, no stranger', (t) => {
  const without = { without: ['peer-gone'] };
  t.equal(mayHave('app', 'peer', without), true);
  t.equal(mayHave('db', 'peer', without), false);
  t.equal(mayHave(undefined, 'peer', without), false);
  t.equal(mayHave('app', 'peer-gone', without), false);
  t.end();
});
