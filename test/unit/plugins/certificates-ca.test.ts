import { generateKeyPairSync } from 'node:crypto';
import t, { type Test } from 'tap';
import { EMPTY_BUNDLE, type SiteBundle } from '../../../src/plugins/certificates/desired.ts';
import { CertificatesPlugin, type CertificatesWanted } from '../../../src/plugins/certificates/plugin.ts';
import { RunFailure, runPlugin } from '../../../src/daemon/reconciler/run.ts';
import { type Handler, json, refuse, scriptedCa } from '../acme/ca.ts';

/** The plugin at a CA that does what a real one does not do when it is asked to. */
const NAMES = ['shop.example', 'www.shop.example'];
const MINUTE = 60_000;
const pem = (): string =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ format: 'pem', type: 'pkcs8' })
    .toString();

/** An app node whose order, at /order/1, the CA knows; its clock is the test's. */
async function nodeAt(t: Test, handlers: (base: () => string) => Readonly<Record<string, Handler>>) {
  let base = '';
  const ca = await scriptedCa(
    t,
    handlers(() => base),
  );
  base = ca.base;
  const [directory, startMs] = [`${base}/dir`, Date.UTC(2026, 10, 29)];
  const time = { ms: 0 };
  let bundle: SiteBundle = {
    ...EMPTY_BUNDLE,
    account: { directory, key: pem(), url: `${base}/account/1` },
    next: { names: NAMES, key: pem(), url: `${base}/order/1`, sinceMs: startMs },
  };
  const wanted: CertificatesWanted = {
    ...{ names: NAMES, profile: undefined, directory, contact: [], termsAgreed: true, caFile: undefined },
    ...{ externalAccount: undefined, edges: [], removed: [], orders: true, why: 'by the test' },
    ...{ challenge: 'dns-01', dns: { zone: 'shop.example', server: undefined, writer: 'app1/app' } },
  };
  const plugin = new CertificatesPlugin({
    userAgent: 'bornemisza/test',
    desired: () => wanted,
    site: {
      get: () => bundle,
      change: async (next) => void (bundle = next(bundle)),
      differing: () => [],
    },
    wallMs: () => startMs + time.ms,
    nowMs: () => time.ms,
    random: () => 0.5,
    nameServers: async () => [],
  });
  t.teardown(() => plugin.close());
  const { signal } = new AbortController();
  /** As the reconciler does. @returns what was made, or the failure */
  const run = async () => {
    try {
      const { made } = await runPlugin(plugin, wanted, { signal, undoTimeoutMs: 1000 });
      return made.map(({ kind }) => kind);
    } catch (error) {
      if (error instanceof RunFailure) return error.reason;
      throw error;
    }
  };
  const status = async () => plugin.status(wanted, await plugin.observe(signal));
  return { ca, time, run, status, bundle: () => bundle };
}

const order =
  (base: () => string): Handler =>
  (response) =>
    json(response, 200, {
      status: 'pending',
      identifiers: NAMES.map((value) => ({ type: 'dns', value })),
      authorizations: NAMES.map((_, at) => `${base()}/authz/${at}`),
      finalize: `${base()}/finalize/1`,
    });
const authorization =
  (base: () => string, value: string): Handler =>
  (response) =>
    json(response, 200, {
      status: 'pending',
      identifier: { type: 'dns', value },
      challenges: [{ type: 'dns-01', url: `${base()}/chall/${value}`, token: 'a-token', status: 'pending' }],
    });

t.test(
  'a CA gets no answer for a name that was not ordered, and nothing is written into the zone',
  async (t) => {
    const answersTo = (second: string) =>
      nodeAt(t, (base) => ({
        'POST /order/1': order(base),
        'POST /authz/0': authorization(base, 'shop.example'),
        'POST /authz/1': authorization(base, second),
      }));
    const well = await answersTo('www.shop.example');
    t.strictSame(await well.run(), ['publish']);
    t.strictSame(
      well.bundle().next?.answers?.map(({ name }) => name),
      ['_acme-challenge.shop.example', '_acme-challenge.www.shop.example'],
    );
    for (const name of ['mail.shop.example', 'shop.example.evil.example', 'example']) {
      const { run, bundle, status } = await answersTo(name);
      t.match(await run(), {
        code: 'certificate-refused',
        message: `the CA could not check ${name}: this name was not ordered`,
      });
      t.equal(bundle().next?.answers, undefined, `${name}: not even for the name that was`);
      t.match((await status()).alarms, [{ code: 'certificate-refused' }]);
    }
  },
);

t.test('a CA that fails for an hour is asked once a minute, and then the same order continues', async (t) => {
  let down = true;
  const { ca, time, run, status, bundle } = await nodeAt(t, (base) => ({
    'POST /order/1': (response, post) =>
      down ? refuse(response, 500, 'serverInternal') : order(base)(response, post),
    'POST /authz/0': authorization(base, 'shop.example'),
    'POST /authz/1': authorization(base, 'www.shop.example'),
  }));
  const before = bundle().next;
  for (; time.ms < 60 * MINUTE - 1000; time.ms += 1000) await run();
  const { length } = ca.calls;
  t.ok(length >= 50 && length <= 200, `${length} calls in an hour`);
  t.strictSame(bundle().next, before, 'the order and its key are kept');
  t.strictSame(bundle().recent, [], 'no order failed');
  const { alarms, facts } = await status();
  t.match(alarms, [
    {
      code: 'certificate-unreachable',
      message: /^the CA at .* refuses: said serverInternal$/,
      next: /^wait/,
    },
  ]);
  t.equal(facts.failingSince, '2026-11-29T00:00:00.000Z');
  down = false;
  time.ms += MINUTE;
  t.strictSame(await run(), ['publish']);
  t.match((await status()).alarms, [{ code: 'certificate-dns-not-seen' }], 'nobody writes the records here');
});

t.test('a CA that is not reached is asked again after seconds, and later once a minute', async (t) => {
  let isReached = false;
  const askedMs: number[] = [];
  const { time, run } = await nodeAt(t, (base) => ({
    'POST /order/1': (response, post) => {
      if (isReached) return order(base)(response, post);
      askedMs.push(time.ms);
      response.destroy();
    },
    'POST /authz/0': authorization(base, 'shop.example'),
    'POST /authz/1': authorization(base, 'www.shop.example'),
  }));
  /** Of the calls until then, in ms. */
  const pausesUntil = async (endMs: number): Promise<number[]> => {
    askedMs.length = 0;
    for (; time.ms < endMs; time.ms += 500) await run();
    return askedMs.slice(1).map((ms, at) => ms - (askedMs[at] ?? 0));
  };
  const pauses = await pausesUntil(5 * MINUTE);
  t.strictSame(pauses.slice(0, 7), [2000, 4000, 8000, 16_000, 32_000, MINUTE, MINUTE]);
  isReached = true;
  time.ms += MINUTE;
  t.strictSame(await run(), ['publish']);
  isReached = false;
  const later = await pausesUntil(time.ms + MINUTE);
  t.strictSame(later.slice(0, 2), [2000, 4000], 'an answer in between ends the long pauses');
});
