import { readFile } from 'node:fs/promises';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import type {
  CertificatesDesired,
  OrderOutcome,
  SiteBundle,
} from '../../../src/plugins/certificates/desired.ts';
import { withRevocation } from '../../../src/plugins/certificates/apply.ts';
import { failingSinceMs } from '../../../src/plugins/certificates/facts.ts';
import { heldOrder, MOST_OUTCOMES, setOf } from '../../../src/plugins/certificates/limits.ts';
import { mergedBundles } from '../../../src/plugins/certificates/merge.ts';
import {
  type CertificatesObserved,
  heldNow,
  orderReason,
  planCertificates,
} from '../../../src/plugins/certificates/plan.ts';
import { CertificatesPlugin } from '../../../src/plugins/certificates/plugin.ts';
import { renewAtMs, windowPauseMs } from '../../../src/plugins/certificates/renewal.ts';
import { selfSigned } from '../../support/self-signed.ts';
import { visitedName } from '../../../src/plugins/certificates/shown.ts';

/** PEM of any certificate. */
async function selfSignedPem(t: Test): Promise<string> {
  const { cert } = await selfSigned(t.testdir(), 'site', 'DNS:shop.example');
  return readFile(cert, 'utf8');
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const NOW = Date.UTC(2026, 10, 29);
const NAMES = ['shop.example', 'www.shop.example'];

const current = {
  names: NAMES,
  profile: undefined,
  key: 'key 1',
  chain: 'chain 1',
  fingerprint: 'f1',
  fromMs: NOW - 10 * DAY,
  endMs: NOW + 80 * DAY,
  revoked: false,
};
const next = {
  names: NAMES,
  profile: undefined,
  key: 'key 2',
  url: 'https://ca.example/o/1',
  sinceMs: NOW - MINUTE,
};
const bundle: SiteBundle = {
  generation: 3,
  account: { key: 'account key', url: 'https://ca.example/acct/1' },
  current,
  next: undefined,
  renewal: undefined,
  notBeforeMs: 0,
  recent: [],
  without: [],
};
const desired = (
  of: Partial<SiteBundle> = {},
  more: Partial<CertificatesDesired> = {},
): CertificatesDesired => ({
  names: NAMES,
  profile: undefined,
  challenge: 'http-01',
  orders: true,
  why: 'this node orders',
  bundle: { ...bundle, ...of },
  removed: [],
  nowMs: NOW,
  ...more,
});
const kinds = (wanted: CertificatesDesired, seen: Partial<CertificatesObserved> = {}): string[] =>
  planCertificates(wanted, { order: undefined, ...seen }).map(({ kind }) => kind);

t.test('each state of an order has one next step', (t) => {
  const noAccount = { account: undefined };
  const keyOnly = { account: { key: 'account key', url: undefined } };
  const none = { current: undefined };
  const cases: readonly (readonly [
    what: string,
    of: Partial<SiteBundle>,
    seen: Partial<CertificatesObserved>,
    steps: readonly string[],
  ])[] = [
    ['all is well', {}, {}, []],
    ['no account', { ...none, ...noAccount }, {}, ['account']],
    ['the account was asked for, and nobody heard the answer', { ...none, ...keyOnly }, {}, ['account']],
    ['no certificate', none, {}, ['order']],
    [
      'the order was sent, and nobody heard the answer',
      { ...none, next: { ...next, url: undefined } },
      {},
      ['order'],
    ],
    ['the order was not asked yet', { next }, {}, []],
    ['the CA wants to check', { next }, { order: 'pending' }, ['answer']],
    ['all is checked', { next }, { order: 'ready' }, ['finalize']],
    ['the CA signs', { next }, { order: 'processing' }, []],
    ['it is signed', { next }, { order: 'valid' }, ['download']],
    ['a check failed', { next }, { order: 'invalid' }, ['abandon']],
    [
      'an order of yesterday',
      { next: { ...next, sinceMs: NOW - DAY - 1 } },
      { order: 'pending' },
      ['abandon'],
    ],
    [
      'an order for other names',
      { next: { ...next, names: ['shop.example'] } },
      { order: 'valid' },
      ['abandon'],
    ],
    [
      'an order for another profile',
      { next: { ...next, profile: 'short' } },
      { order: 'valid' },
      ['abandon'],
    ],
    ['old served while the next is made', { next }, { order: 'ready' }, ['finalize']],
  ];
  for (const [what, of, seen, steps] of cases) {
    t.strictSame(kinds(desired(of), seen), steps, what);
    t.strictSame(kinds(desired(of, { orders: false }), seen), [], `${what}, seen by one that does not order`);
  }
  t.end();
});

t.test('by dns-01 the TXT records are in the bundle before the CA may check', (t) => {
  const byDns = { challenge: 'dns-01' } as const;
  const answers = [{ name: '_acme-challenge.shop.example', value: 'v' }];
  const pending = { order: 'pending' } as const;
  t.strictSame(kinds(desired({ next }, byDns), pending), ['publish']);
  t.strictSame(kinds(desired({ next: { ...next, answers } }, byDns), pending), ['answer']);
  t.strictSame(
    kinds(desired({ next: { ...next, answers: [] } }, byDns), pending),
    ['answer'],
    'all are proved',
  );
  t.strictSame(kinds(desired({ next }, byDns), { order: 'ready' }), ['finalize']);
  t.strictSame(kinds(desired({ next }, { ...byDns, orders: false }), pending), [], 'another node orders');
  t.end();
});

t.test('a bundle whose TXT records an older version has dropped loses to the one that has them', (t) => {
  const answers = [{ name: '_acme-challenge.shop.example', value: 'v' }];
  const whole = { ...bundle, next: { ...next, answers } };
  const cut = { ...bundle, next };
  t.strictSame(mergedBundles(whole, cut).next?.answers, answers);
  t.strictSame(mergedBundles(cut, whole).next?.answers, answers);
  const later = { ...cut, generation: bundle.generation + 1 };
  t.equal(
    mergedBundles(whole, later).next?.answers,
    undefined,
    'it went on with the order: they are made again',
  );
  t.end();
});

t.test('visitors are led to a name without a wildcard', (t) => {
  t.equal(visitedName(['*.shop.example', 'shop.example']), 'shop.example');
  t.equal(visitedName(['*.shop.example']), 'www.shop.example');
  t.end();
});

t.test('no order without a reason', (t) => {
  const late = NOW + 51 * DAY;
  const drawn = { fingerprint: 'f1', atMs: NOW + DAY };
  const cases: readonly (readonly [
    string,
    Partial<SiteBundle>,
    Partial<CertificatesDesired>,
    string | undefined,
  ])[] = [
    ['all is well', {}, {}, undefined],
    ['no names', { current: undefined }, { names: [] }, undefined],
    ['none yet', { current: undefined }, {}, 'none'],
    ['revoked', { current: { ...current, revoked: true } }, {}, 'revoked'],
    ['a name more', {}, { names: ['api.shop.example', ...NAMES] }, 'names'],
    ['a name less', {}, { names: ['shop.example'] }, 'names'],
    ['another profile', {}, { profile: 'short' }, 'profile'],
    ['a node was removed', {}, { removed: ['peer9'] }, 'removal'],
    ['it was removed before this key', { without: ['peer9'] }, { removed: ['peer9'] }, undefined],
    ['two thirds are over', {}, { nowMs: late }, 'renewal'],
    ['the CA’s moment has come', { renewal: drawn }, { nowMs: NOW + DAY }, 'renewal'],
    ['and not yet', { renewal: drawn }, { nowMs: NOW + DAY - 1 }, undefined],
    [
      'the CA’s moment is later than ours',
      { renewal: { ...drawn, atMs: late + DAY } },
      { nowMs: late },
      undefined,
    ],
    [
      'a moment of the former certificate',
      { renewal: { ...drawn, fingerprint: 'f0', atMs: 1 } },
      {},
      undefined,
    ],
  ];
  for (const [what, of, more, reason] of cases) t.equal(orderReason(desired(of, more)), reason, what);
  const asked = { fingerprint: 'f1', atMs: NOW, force: false };
  t.equal(orderReason(desired({ asked })), 'asked', 'an operator asked');
  t.equal(orderReason(desired({ asked: { ...asked, fingerprint: 'f0' } })), undefined, 'for another one');
  t.equal(orderReason(desired({ asked: { atMs: NOW, force: true } })), undefined, 'before there was one');
  t.end();
});

t.test('a certificate is renewed in the CA’s window, or else by the life that is left', (t) => {
  const life = (days: number) => ({ fromMs: NOW, endMs: NOW + days * DAY });
  const window = { startMs: NOW + 10 * DAY, endMs: NOW + 12 * DAY };
  const over = { startMs: NOW - 3 * DAY, endMs: NOW - 2 * DAY };
  type Case = readonly [
    what: string,
    days: number,
    window: typeof window | undefined,
    draw: number,
    atDay: number,
  ];
  const cases: readonly Case[] = [
    ['90 days', 90, undefined, 0.5, 60],
    ['45 days', 45, undefined, 0.5, 30],
    ['6 days', 6, undefined, 0.5, 3],
    ['10 days', 10, undefined, 0.5, 5],
    ['the window begins', 90, window, 0, 10],
    ['in the window', 90, window, 0.5, 11],
    ['the window ends', 90, window, 1, 12],
    ['a window that is over', 90, over, 0.5, -2.5],
    ['a window after the end', 11, window, 0.5, 22 / 3],
    ['a window backwards', 90, { startMs: window.endMs, endMs: window.startMs }, 0.5, 60],
  ];
  for (const [what, days, of, draw, atDay] of cases)
    t.equal(renewAtMs(life(days), of, draw), Math.round(NOW + atDay * DAY), what);
  t.end();
});

t.test('a window that the CA moved is taken, for the certificate that is served', (t) => {
  const renewal = { fingerprint: 'f1', atMs: NOW + 20 * DAY };
  const window = (from: number, to: number) => ({ startMs: NOW + from * DAY, endMs: NOW + to * DAY });
  const cases: readonly (readonly [
    what: string,
    of: Partial<SiteBundle>,
    window: ReturnType<typeof window> | undefined,
    steps: readonly string[],
  ])[] = [
    ['the time is in the window', { renewal }, window(19, 21), []],
    ['the CA does not say', { renewal }, undefined, []],
    ['earlier', { renewal }, window(-2, -1), ['window']],
    ['later', { renewal }, window(40, 41), ['window']],
    ['after the end of the certificate', { renewal }, window(79, 81), []],
    ['backwards', { renewal }, window(3, 2), []],
    ['no time was chosen yet', {}, window(1, 2), ['window']],
    [
      'the time of another certificate',
      { renewal: { ...renewal, fingerprint: 'f0' } },
      window(1, 2),
      ['window'],
    ],
    ['an order is open', { renewal, next }, window(-2, -1), []],
    ['none is served', { current: undefined, renewal }, window(-2, -1), ['order']],
  ];
  for (const [what, of, seen, steps] of cases) {
    t.strictSame(kinds(desired(of), { window: seen }), steps, what);
    t.strictSame(kinds(desired(of, { orders: false }), { window: seen }), [], `${what}, at another node`);
  }
  t.end();
});

t.test('the CA is asked for its window as often as it says, within a minute and a day', (t) => {
  t.equal(windowPauseMs(21_600_000), 21_600_000);
  t.equal(windowPauseMs(1), MINUTE);
  t.equal(windowPauseMs(7 * DAY), DAY);
  t.equal(windowPauseMs(), 6 * HOUR);
  t.end();
});

const past = (outcome: OrderOutcome['outcome'], agoMs: number, names = setOf(NAMES)): OrderOutcome => ({
  outcome,
  names,
  atMs: NOW - agoMs,
});

t.test('limits of our own hold an order, and say until when', (t) => {
  const limited = (untilMs: number) => ({ code: 'certificate-limited', untilMs });
  const budget = (untilMs: number) => ({ code: 'certificate-budget', untilMs });
  const three = [past('finalized', 6 * DAY), past('finalized', 4 * DAY), past('finalized', 2 * DAY)];
  const failures = (count: number, lastAgoMs: number) =>
    Array.from({ length: count }, (_, at) => past('failed', lastAgoMs + at * 7 * HOUR));
  type Case = readonly [string, readonly OrderOutcome[], Parameters<typeof heldOrder>[2], object | undefined];
  const cases: readonly Case[] = [
    ['nothing happened', [], 'none', undefined],
    ['two signed in a week', three.slice(1), 'renewal', undefined],
    ['three signed in a week', three, 'renewal', budget(NOW + DAY)],
    ['three, whatever the reason', three, 'names', budget(NOW + DAY)],
    ['three of other names', three.map((each) => ({ ...each, names: 'other.example' })), 'none', undefined],
    ['the oldest is a week old', [past('finalized', 7 * DAY), ...three.slice(1)], 'renewal', undefined],
    ['a success an hour ago', [past('issued', HOUR)], 'renewal', limited(NOW + 23 * HOUR)],
    ['another profile after a success', [past('issued', HOUR)], 'profile', limited(NOW + 23 * HOUR)],
    ['revoked after a success', [past('issued', HOUR)], 'revoked', undefined],
    ['a node removed after a success', [past('issued', HOUR)], 'removal', undefined],
    ['a success yesterday', [past('issued', DAY)], 'renewal', undefined],
    ['one failure', failures(1, 30_000), 'none', limited(NOW + 30_000)],
    ['one failure a minute ago', failures(1, MINUTE), 'none', undefined],
    ['two failures', failures(2, MINUTE), 'none', limited(NOW + 4 * MINUTE)],
    ['three failures', failures(3, MINUTE), 'none', limited(NOW + 29 * MINUTE)],
    ['four failures', failures(4, MINUTE), 'none', limited(NOW + 119 * MINUTE)],
    ['five failures', failures(5, MINUTE), 'none', limited(NOW + 6 * HOUR - MINUTE)],
    ['twenty failures', failures(20, MINUTE), 'none', limited(NOW + 6 * HOUR - MINUTE)],
    [
      'failures before a success',
      [...failures(5, 26 * HOUR), past('issued', 25 * HOUR)],
      'renewal',
      undefined,
    ],
    [
      'two failed checks',
      [past('refused', 40 * MINUTE), past('refused', 10 * MINUTE)],
      'none',
      limited(NOW + 20 * MINUTE),
    ],
    ['a failed check', [past('refused', 2 * MINUTE)], 'none', undefined],
    // A clock that was set back by an hour: as if it happened now.
    ['a failure in the future', failures(1, -HOUR), 'none', limited(NOW + MINUTE)],
    [
      'three of next year',
      three.map((each) => ({ ...each, atMs: each.atMs + 365 * DAY })),
      'none',
      undefined,
    ],
  ];
  for (const [what, recent, reason, held] of cases)
    t.strictSame(heldOrder({ recent, notBeforeMs: 0 }, NAMES, reason, NOW), held, what);
  t.strictSame(
    heldOrder({ recent: [], notBeforeMs: NOW + 60_000 }, NAMES, 'none', NOW),
    limited(NOW + 60_000),
  );
  const plain = { atMs: NOW, force: false };
  const asked: readonly (readonly [string, readonly OrderOutcome[], boolean, object | undefined])[] = [
    ['an operator asks after five failures', failures(5, MINUTE), false, undefined],
    ['a day is not over', [past('issued', HOUR)], false, limited(NOW + 23 * HOUR)],
    ['he says force', [past('issued', HOUR)], true, undefined],
    ['three were signed', three, false, budget(NOW + DAY)],
    ['three were signed, with force', three, true, undefined],
    [
      'two checks failed',
      [past('refused', 40 * MINUTE), past('refused', MINUTE)],
      false,
      limited(NOW + 20 * MINUTE),
    ],
    [
      'two checks failed, with force',
      [past('refused', 40 * MINUTE), past('refused', MINUTE)],
      true,
      undefined,
    ],
    ['force was used up', [...three, past('finalized', 0)], true, budget(NOW + 3 * DAY)],
    ['it failed once more since', failures(1, 0), true, limited(NOW + MINUTE)],
  ];
  for (const [what, recent, force, held] of asked)
    t.strictSame(
      heldOrder({ recent, notBeforeMs: 0, asked: { ...plain, atMs: NOW - 1, force } }, NAMES, 'asked', NOW),
      held,
      what,
    );
  t.strictSame(
    heldOrder(
      { recent: [], notBeforeMs: NOW + 60_000, asked: { ...plain, force: true } },
      NAMES,
      'asked',
      NOW,
    ),
    limited(NOW + 60_000),
    'force is not for the CA',
  );
  const later = { recent: three, notBeforeMs: NOW + 2 * DAY };
  t.strictSame(heldOrder(later, NAMES, 'none', NOW), limited(NOW + 2 * DAY), 'the CA’s word lasts longer');
  t.end();
});

t.test('no node makes a delayed order, and an open order continues', (t) => {
  const recent = [past('failed', 30_000)];
  t.strictSame(kinds(desired({ current: undefined, recent })), []);
  t.match(heldNow(desired({ current: undefined, recent })), { code: 'certificate-limited' });
  t.strictSame(kinds(desired({ next, recent }), { order: 'ready' }), ['finalize']);
  t.equal(heldNow(desired({ next, recent })), undefined);
  t.equal(heldNow(desired({ recent })), undefined, 'without a reason nothing is held');
  t.end();
});

/** Sixty days of looks, at a CA where the same comes of every order, counted against what Let's Encrypt takes. */
t.test('no week has more than three certificates, and no hour more than two failed checks', (t) => {
  for (const outcomes of [
    ['refused'],
    ['failed'],
    ['finalized', 'failed'],
    ['finalized', 'issued'],
  ] as const) {
    let recent: readonly OrderOutcome[] = [];
    const made: OrderOutcome[] = [];
    for (let nowMs = NOW; nowMs < NOW + 60 * DAY; nowMs += 10 * MINUTE) {
      if (heldOrder({ recent, notBeforeMs: 0 }, NAMES, 'renewal', nowMs) !== undefined) continue;
      const one = outcomes.map((outcome) => ({ outcome, names: setOf(NAMES), atMs: nowMs }));
      made.push(...one);
      recent = [...recent, ...one].slice(-MOST_OUTCOMES);
    }
    const most = (kind: string, withinMs: number): number => {
      const times = made.filter((each) => each.outcome === kind).map(({ atMs }) => atMs);
      return Math.max(
        0,
        ...times.map((from) => times.filter((at) => at >= from && at < from + withinMs).length),
      );
    };
    const signed = most('finalized', 7 * DAY);
    t.equal(signed, outcomes.includes('finalized' as never) ? 3 : 0, outcomes.join());
    t.ok(most('refused', HOUR) <= 2, outcomes.join());
    t.ok(made.length > 40, `${outcomes.join()}: and it is not given up`);
  }
  t.end();
});

t.test(
  'an app node is removed: new keys first, then the account, the order, and the former one revoked',
  (t) => {
    const removed = ['peer9'];
    const known = { without: ['peer9'] };
    const exposed = [{ fingerprint: 'f1', leaf: 'leaf 1', endMs: NOW + DAY }];
    const rekeyed = { key: 'account key', nextKey: 'next key', url: 'https://ca.example/acct/1' };
    const served = { replaced: true };
    const other = { ...current, fingerprint: 'f2' };
    type Case = readonly [string, Partial<SiteBundle>, Partial<CertificatesObserved>, readonly string[]];
    const cases: readonly Case[] = [
      ['it was just removed', {}, {}, ['exclude']],
      ['in the middle of an order', { next }, { order: 'ready' }, ['exclude']],
      [
        'at the limit of orders',
        { recent: [past('finalized', 0), past('finalized', 0), past('finalized', 0)] },
        {},
        ['exclude'],
      ],
      ['keys are there', { ...known, exposed, account: rekeyed }, {}, ['rekey']],
      ['the account has the next key', { ...known, exposed }, {}, ['order']],
      ['within a day of the last one', { ...known, exposed, recent: [past('issued', HOUR)] }, {}, ['order']],
      ['the order goes on', { ...known, exposed, next }, { order: 'ready' }, ['finalize']],
      ['an edge shows the former one', { ...known, exposed, current: other }, { replaced: false }, []],
      ['all show the next one', { ...known, exposed, current: other }, served, ['revoke']],
      [
        'in the middle of a further order',
        { ...known, exposed, current: other, next },
        { ...served, order: 'ready' },
        ['finalize'],
      ],
      ['the present one is never revoked', { ...known, exposed }, served, ['order']],
      [
        'the present one is never revoked, at the limit',
        { ...known, exposed, notBeforeMs: NOW + 1 },
        served,
        [],
      ],
      ['it is over', { ...known, exposed: [], current: other }, served, []],
    ];
    for (const [what, of, seen, steps] of cases) {
      t.strictSame(kinds(desired(of, { removed }), seen), steps, what);
      t.strictSame(
        kinds(desired(of, { removed, orders: false }), seen),
        [],
        `${what}, seen by one that does not order`,
      );
    }
    t.end();
  },
);

t.test(
  'an operator revokes: new keys and another certificate first, or with `now` the revocation first',
  (t) => {
    const own = { fingerprint: 'f1', leaf: 'leaf 1', endMs: NOW + DAY, reason: 1, now: false };
    const urgent = { ...own, now: true };
    const other = { ...current, fingerprint: 'f2' };
    const rekeyed = { key: 'account key', nextKey: 'next key', url: 'https://ca.example/acct/1' };
    const held = { notBeforeMs: NOW + DAY };
    type Case = readonly [string, Partial<SiteBundle>, Partial<CertificatesObserved>, readonly string[]];
    const cases: readonly Case[] = [
      ['the account changes its key first', { exposed: [own], account: rekeyed }, {}, ['rekey']],
      ['an hour after the last one', { exposed: [own], recent: [past('issued', HOUR)] }, {}, ['order']],
      ['no order may be made', { exposed: [own], ...held }, { replaced: true }, []],
      ['the next is there, and an edge has the former', { exposed: [own], current: other }, {}, []],
      ['all edges have the next', { exposed: [own], current: other }, { replaced: true }, ['revoke']],
      ['now', { exposed: [urgent] }, {}, ['revoke']],
      ['now, whatever the limits', { exposed: [urgent], ...held }, {}, ['revoke']],
      ['now, in the middle of an order', { exposed: [urgent], next }, { order: 'ready' }, ['revoke']],
      ['now, after the key of the account', { exposed: [urgent], account: rekeyed }, {}, ['rekey']],
      ['the present one is revoked', { exposed: [], current: { ...current, revoked: true } }, {}, ['order']],
    ];
    for (const [what, of, seen, steps] of cases) t.strictSame(kinds(desired(of), seen), steps, what);
    t.equal(orderReason(desired({ exposed: [own] })), 'revocation');
    t.match(
      planCertificates(desired({ exposed: [own], current: other }), { order: undefined, replaced: true }),
      [{ summary: /an operator asked for it/ }],
    );
    const cut = { ...bundle, exposed: [{ fingerprint: 'f1', leaf: 'leaf 1', endMs: NOW + DAY }] };
    const whole = { ...bundle, exposed: [urgent] };
    t.strictSame(mergedBundles(cut, whole), mergedBundles(whole, cut));
    t.equal(mergedBundles(cut, whole).exposed?.[0]?.now, true, 'an older version drops it');
    t.end();
  },
);

t.test('a request to revoke keeps a key that the CA may know, and says what it cannot do', async (t) => {
  const account = { key: 'account key', nextKey: 'next key', url: 'https://ca.example/acct/1' };
  const pem = await selfSignedPem(t);
  const served = { ...current, chain: pem, directory: 'https://ca.example/dir' };
  t.equal(withRevocation({ ...bundle, current: served, account }, 'superseded', false).account, account);
  let held: SiteBundle = { ...bundle, current: served };
  const site = {
    get: () => held,
    change: async (next: (now: SiteBundle) => SiteBundle) => (held = next(held)),
    differing: () => [],
  };
  const times = { wallMs: () => NOW, nowMs: () => 0, random: () => 0.5 };
  const { bundle: _, nowMs: __, ...plain } = desired();
  const more = {
    contact: [],
    termsAgreed: true,
    caFile: undefined,
    externalAccount: undefined,
    dns: undefined,
  };
  const wanted = { ...plain, ...more, directory: 'https://ca.example/dir', edges: [] };
  const plugin = new CertificatesPlugin({ userAgent: 'x', desired: () => wanted, site, ...times });
  const revoke = (now = false) => plugin.revoke({ reason: 'keyCompromise', now });

  const three = [past('finalized', 3 * DAY), past('finalized', 2 * DAY), past('finalized', DAY)];
  held = { ...held, recent: three };
  await t.rejects(revoke(), {
    code: 'certificate-budget',
    message: /nothing is revoked/,
    next: /revoke --now/,
  });
  t.match(await revoke(true), {
    message: /is revoked now; the next one is ordered with new keys on 2026-12-03T/,
  });
  t.match(held, { exposed: [{ fingerprint: 'f1', reason: 1, now: true }], next: undefined });
  t.match(held.account?.nextKey, /PRIVATE KEY/);
  held = { ...held, exposed: [], recent: [] };
  t.match(await revoke(), { message: /when all edges serve the next one; .* at once; this node orders/ });
  for (const [what, of, message] of [
    ['none', undefined, /there is no certificate/],
    ['revoked', { ...served, revoked: true }, /revoked already/],
    ['of another CA', { ...served, directory: 'https://other.example/dir' }, /from another CA/],
  ] as const) {
    held = { ...held, current: of };
    await t.rejects(revoke(true), { code: 'certificate-not-revocable', message }, what);
  }
});

t.test('bundles of both sides of a partition merge into one, in any order', (t) => {
  const times = fc.integer({ min: 0, max: 5 });
  const outcome = fc.record({
    atMs: times,
    names: fc.constantFrom('a', 'b'),
    outcome: fc.constantFrom('finalized' as const, 'issued' as const, 'failed' as const),
  });
  const bundles = fc.record({
    generation: times,
    account: fc.option(fc.record({ key: fc.constantFrom('k', 'l'), url: fc.constant(undefined) }), {
      nil: undefined,
    }),
    current: fc.option(
      fc
        .record({ fromMs: times, endMs: times, fingerprint: fc.constantFrom('f1', 'f2') })
        .map((each) => ({ ...current, ...each })),
      { nil: undefined },
    ),
    next: fc.constantFrom(
      undefined,
      next,
      { ...next, answers: [] },
      { ...next, answers: [{ name: 'n', value: 'v' }] },
    ),
    renewal: fc.constantFrom(undefined, { fingerprint: 'f1', atMs: 1 }),
    notBeforeMs: times,
    recent: fc.array(outcome, { maxLength: 5 }),
    without: fc.constantFrom([], ['peer9']),
  });
  const same = (one: SiteBundle, other: SiteBundle): boolean => JSON.stringify(one) === JSON.stringify(other);
  fc.assert(
    fc.property(bundles, bundles, bundles, (a, b, c) => {
      const ab = mergedBundles(a, b);
      return (
        same(ab, mergedBundles(b, a)) &&
        same(mergedBundles(ab, c), mergedBundles(a, mergedBundles(b, c))) &&
        same(mergedBundles(ab, a), ab) &&
        same(mergedBundles(ab, ab), ab) &&
        ab.notBeforeMs === Math.max(a.notBeforeMs, b.notBeforeMs) &&
        [...a.recent, ...b.recent].every((each) => ab.recent.some((kept) => kept.atMs === each.atMs))
      );
    }),
    { numRuns: 1000 },
  );
  const later = {
    ...bundle,
    generation: 1,
    current: { ...current, fromMs: current.fromMs + 1, endMs: current.endMs - 80 * DAY, fingerprint: 'f9' },
  };
  t.equal(
    mergedBundles(bundle, later).current?.fingerprint,
    'f9',
    'the newer wins, also one of a shorter profile',
  );
  t.end();
});

t.test('orders fail since the first that failed after a success, or since a renewal that is late', (t) => {
  const none = { current: undefined };
  const due = { nowMs: NOW + 50 * DAY + 2 * HOUR };
  const cases: readonly (readonly [
    string,
    Partial<SiteBundle>,
    { readonly nowMs?: number },
    number | undefined,
  ])[] = [
    ['all is well', {}, {}, undefined],
    ['nothing was tried yet', none, {}, undefined],
    [
      'it failed twice',
      { ...none, recent: [past('failed', 3 * HOUR), past('refused', HOUR)] },
      {},
      NOW - 3 * HOUR,
    ],
    [
      'it failed before a success',
      { ...none, recent: [past('failed', 3 * HOUR), past('issued', HOUR)] },
      {},
      undefined,
    ],
    ['other names failed', { ...none, recent: [past('failed', HOUR, 'other.example')] }, {}, undefined],
    ['failures, and nothing is wanted', { recent: [past('failed', HOUR)] }, {}, undefined],
    ['the renewal is two hours late', {}, due, NOW + 50 * DAY],
    ['the renewal is just due', {}, { nowMs: NOW + 50 * DAY + HOUR }, undefined],
  ];
  for (const [what, of, more, since] of cases) t.equal(failingSinceMs(desired(of, more)), since, what);
  t.end();
});

t.test('the ordering node publishes in its record that no order succeeded for a day', (t) => {
  const site = { get: () => bundle, change: async () => undefined, differing: () => [] };
  const times = { wallMs: () => NOW, nowMs: () => 0, random: () => 0.5 };
  const plugin = new CertificatesPlugin({ userAgent: 'x', desired: () => undefined, site, ...times });
  const { bundle: _, nowMs: __, ...plain } = desired();
  const tag = (orders: boolean, failedAgoMs: number) => report(orders, [past('failed', failedAgoMs)]).tag;
  const report = (orders: boolean, recent: readonly OrderOutcome[]) => {
    const wanted = { ...plain, orders, directory: 'https://ca.example/dir', contact: [], termsAgreed: true };
    const seen = {
      bundle: { ...bundle, current: undefined, recent },
      nowMs: NOW,
      waits: undefined,
      order: undefined,
    };
    return plugin.status(
      { ...wanted, caFile: undefined, externalAccount: undefined, dns: undefined, edges: [] },
      seen,
    );
  };
  t.equal(tag(true, DAY - 1), undefined);
  t.equal(tag(true, DAY), 'failing');
  t.equal(tag(false, DAY), undefined, 'another says nothing');

  const three = [past('finalized', 6 * DAY), past('finalized', 4 * DAY), past('finalized', 2 * DAY)];
  t.match(report(true, three).alarms, [
    {
      code: 'certificate-budget',
      message: '3 certificates for these names were signed in 7 days: the next order is on 2026-11-30',
      next: /the present certificate stays in use/,
    },
  ]);
  t.strictSame(report(true, three.slice(1)).alarms, []);
  t.strictSame(report(false, three).alarms, [], 'another does not order');
  t.end();
});
