import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { CloudflareProvider } from '../../src/plugins/dns/cloudflare.ts';
import type { DnsDesired, DnsSet } from '../../src/plugins/dns/desired.ts';
import { DnsPlugin } from '../../src/plugins/dns/plugin.ts';
import { runPlugin } from '../../src/daemon/reconciler/run.ts';
import { CloudflareStandIn, type StoredRow } from '../standin/cloudflare/api.ts';
import { wishes } from './dns-wishes.ts';

/** The provider and the plugin over HTTP, at a stand-in for Cloudflare. */
const ZONE = 'shop.example';
const ZONE_ID = '0123456789abcdef0123456789abcdef';
const TOKEN = 'a-token-of-forty-characters-is-a-secret0';
const signal = new AbortController().signal;

/**
 * What a founder has: records of all kinds, some with comments of their own, one behind the proxy, more than a page of
 * them.
 */
const FOUNDERS: readonly StoredRow[] = [
  ['mail', 'A', '198.51.100.25', null],
  ['', 'MX', 'mail.shop.example', null],
  ['', 'TXT', '"v=spf1 mx -all"', 'for mail'],
  ['', 'CAA', '0 issue "letsencrypt.org"', null],
  ['blog', 'CNAME', 'pages.example', 'bornemisza is great'],
  ['shop', 'A', '198.51.100.7', null],
  ['other', 'A', '198.51.100.8', 'bornemisza:another'],
  ...Array.from({ length: 120 }, (_, number) => [`n${number}`, 'A', '198.51.100.9', ''] as const),
].map(([name, type, content, comment], number) => ({
  // Not one that the stand-in gives.
  id: `${number}`.padStart(32, 'f'),
  name: name === '' ? ZONE : `${name}.${ZONE}`,
  type: type ?? '',
  content: content ?? '',
  ttl: name === 'shop' ? 1 : 300,
  proxied: name === 'shop',
  comment: comment ?? null,
}));

const set = (name: string, values: readonly string[], more: Partial<DnsSet> = {}): DnsSet => ({
  name: name === '' ? ZONE : `${name}.${ZONE}`,
  type: 'A',
  values,
  ttlS: 60,
  guard: 'serves',
  ...more,
});
const desired = (sets: readonly DnsSet[], more: Partial<DnsDesired> = {}): DnsDesired => ({
  ...{
    zone: ZONE,
    owner: 'shop',
    writer: true,
    why: 'this node writes them',
    sets,
    challenges: [],
    doubtful: [],
  },
  ...more,
});

async function scene(t: Test, token = TOKEN) {
  const api = new CloudflareStandIn(ZONE_ID, TOKEN, FOUNDERS);
  const baseUrl = await api.listen();
  t.teardown(() => api.close());
  const tokenFile = join(t.testdir(), 'token');
  await writeFile(tokenFile, `${token}\n`);
  // Ten seconds pass between two looks at the clock, so that the limits of our own never wait here.
  const time = { ms: 0, stepMs: 10_000 };
  const nowMs = (): number => (time.ms += time.stepMs);
  const make = (more = {}) =>
    new CloudflareProvider({ zone: ZONE, zoneId: ZONE_ID, tokenFile, baseUrl, nowMs, ...more });
  let wanted = desired([]);
  const silent = new Set<string>();
  const plugin = new DnsPlugin({
    provider: make(),
    desired: () => wanted,
    ask: async (address) => !silent.has(address),
    nowMs,
  });
  t.teardown(() => plugin.close());
  /** Runs as the reconciler does until nothing is left; returns what was made. */
  const converge = async (next: DnsDesired): Promise<string[]> => {
    wanted = next;
    const made: string[] = [];
    for (let run = 0; run < 8; run += 1) {
      const outcome = await runPlugin(plugin, wanted, { signal, undoTimeoutMs: 1000 });
      if (outcome.planned.length === 0) return made;
      made.push(...outcome.made.map(({ summary }) => summary));
    }
    throw new Error('it does not converge');
  };
  return { api, time, make, plugin, converge, silent, tokenFile };
}

const founders = (rows: readonly StoredRow[]): string =>
  JSON.stringify(rows.filter(({ comment }) => comment !== 'bornemisza:shop'));

t.test('records come and go over pages, and the founder’s stay byte-equal', async (t) => {
  const { api, converge } = await scene(t);
  const before = founders(api.rows);
  const srv = '1 0 4101 internal.app1.shop.example';
  const sets = [
    set('', ['192.0.2.1', '192.0.2.2']),
    set('_app._tcp', [srv], { type: 'SRV', guard: 'finds' }),
    set('', ['2001:db8::1'], { type: 'AAAA' }),
  ];
  t.equal((await converge(desired(sets))).length, 3);
  t.match(
    api.rows.find(({ type }) => type === 'SRV'),
    { data: { priority: 1, weight: 0, port: 4101, target: 'internal.app1.shop.example' } },
  );
  t.ok(api.calls.includes('GET dns_records?per_page=100&page=2'));
  t.notOk(api.calls.some((each) => each.includes('page=3')));
  t.strictSame(await converge(desired(sets)), [], 'read back, nothing is left');
  const writes = api.calls.filter((each) => each.startsWith('POST')).length;
  t.equal(writes, 1, 'one call for all');
  await converge(desired([set('', ['192.0.2.3'])]));
  t.strictSame(
    api.rows.filter(({ comment }) => comment === 'bornemisza:shop').map(({ content }) => content),
    ['192.0.2.3'],
  );
  t.equal(founders(api.rows), before);
});

t.test(
  'through 500 random changes the founder’s rows stay, and no resolver finds the site’s name empty',
  async (t) => {
    const { api, converge } = await scene(t);
    const before = founders(api.rows);
    await converge(desired([set('', ['192.0.2.1'])]));
    let [empty, made] = [0, 0];
    api.changed = (rows) => {
      made += 1;
      if (!rows.some(({ name, type }) => name === ZONE && type === 'A')) empty += 1;
      if (founders(rows) !== before) t.fail(`the founder’s rows after ${made} changes`);
    };
    for (const sets of wishes(ZONE, 7)) {
      await converge(desired(sets));
      if (made >= 500) break;
    }
    t.equal(empty, 0);
    t.equal(founders(api.rows), before);
  },
);

t.test('a new value is posted and read back before an old one is deleted', async (t) => {
  const { api, converge } = await scene(t);
  await converge(desired([set('', ['192.0.2.1'])]));
  api.calls.length = 0;
  await converge(desired([set('', ['192.0.2.2'])]));
  const order = api.calls.filter((each) => !each.includes('page=2')).map((each) => each.split('?')[0]);
  const first = order.indexOf('POST dns_records/batch');
  const second = order.lastIndexOf('POST dns_records/batch');
  t.ok(first >= 0 && second > first + 1);
  t.equal(order[first + 1], 'GET dns_records');
});

t.test(
  'answers for a CA have a comment each, in the letters as given, beside a value of the founder',
  async (t) => {
    const { api, converge, plugin } = await scene(t);
    const name = `_acme-challenge.${ZONE}`;
    const own = { name, type: 'TXT', content: '"Of-Another"', ttl: 300, proxied: false, comment: null };
    api.rows = [...api.rows, { id: 'a'.repeat(32), ...own }];
    const before = founders(api.rows);
    const challenges = ['One_-1', 'two'].map((value) => ({ name, value }));
    t.equal((await converge(desired([], { challenges }))).length, 1);
    t.strictSame(
      api.rows.filter(({ comment }) => comment === 'bornemisza:shop').map(({ content }) => content),
      ['"One_-1"', '"two"'],
    );
    t.equal(founders(api.rows), before);
    const shown = await plugin.show(signal);
    t.match(shown.sets, [{ name, type: 'TXT', whose: 'ours', present: ['Of-Another', 'One_-1', 'two'] }]);
    t.strictSame(await converge(desired([], { challenges })), [], 'read back, nothing is left');
    t.equal((await converge(desired([]))).length, 1);
    t.equal(founders(api.rows), before);
    t.notOk(api.rows.some(({ comment }) => comment === 'bornemisza:shop'));
  },
);

t.test('a record is adopted and released by its comment, and keeps its proxy', async (t) => {
  const { api, converge, plugin } = await scene(t);
  const wanted = desired([set('shop', ['192.0.2.1'])]);
  await converge(wanted);
  const row = () => api.rows.filter(({ name, type }) => name === `shop.${ZONE}` && type === 'A');
  t.match(row(), [{ content: '198.51.100.7', comment: null, proxied: true }]);
  await plugin.ask('adopt', { name: `shop.${ZONE}`, type: 'A' }, signal);
  t.match(row(), [{ content: '198.51.100.7', comment: 'bornemisza:shop', proxied: true, ttl: 1 }]);
  await converge(wanted);
  t.match(row(), [{ content: '192.0.2.1', comment: 'bornemisza:shop', proxied: true }]);
  await plugin.ask('release', { name: `shop.${ZONE}`, type: 'A' }, signal);
  t.match(row(), [{ content: '192.0.2.1', comment: '', proxied: true }]);
  t.strictSame(await converge(desired([])), [], 'and is left alone');
  t.match((await plugin.show(signal)).sets, []);
});

t.test('what is not ours is left alone, and the proxy stays the founder’s', async (t) => {
  const { api, converge, plugin, time } = await scene(t);
  const before = founders(api.rows);
  await converge(
    desired([set('blog', ['192.0.2.1']), set('mail', ['192.0.2.1']), set('other', ['192.0.2.1'])]),
  );
  t.equal(founders(api.rows), before);
  const wanted = desired([set('mail', ['192.0.2.1'])]);
  t.match(plugin.status(wanted, await plugin.observe(signal)).alarms, [{ code: 'dns-foreign' }]);
  await converge(desired([set('', ['192.0.2.1'])]));
  // The founder puts our record behind the proxy.
  api.rows = api.rows.map((row) =>
    row.name === ZONE && row.type === 'A' ? { ...row, proxied: true, ttl: 1 } : row,
  );
  time.ms += 60_000;
  await converge(desired([set('', ['192.0.2.1', '192.0.2.2'])]));
  t.match(
    api.rows.filter(({ name, type }) => name === ZONE && type === 'A'),
    [
      { content: '192.0.2.1', proxied: true },
      { content: '192.0.2.2', proxied: true, ttl: 1 },
    ],
  );
});

/** What an operator reads. */
const SENTENCES: Readonly<Record<string, RegExp>> = {
  'dns-token': /^the token may not edit shop\.example: ./,
  'dns-zone': /^the provider knows no zone 0123456789abcdef0123456789abcdef with this token$/,
  'dns-foreign': /^a record of shop\.example conflicts with another one: ./,
  'dns-value-refused': /^the provider refuses a value for shop\.example: .*; nothing is changed$/,
  'dns-unreachable': /^the provider does not answer about shop\.example: .+; the records are not updated$/,
};

t.test('each answer has its meaning, and changes nothing', async (t) => {
  const cases: readonly (readonly [code: string, fault: CloudflareStandIn['faults'][number]])[] = [
    ['dns-token', { status: 400, code: 6003 }],
    ['dns-token', { status: 403, code: 10000 }],
    ['dns-token', { status: 403, code: 9109 }],
    ['dns-zone', { status: 404, code: 7003 }],
    ['dns-foreign', { status: 400, code: 81053 }],
    ['dns-foreign', { status: 400, code: 1003 }],
    ['dns-value-refused', { status: 400, code: 1004 }],
    ['dns-value-refused', { status: 400, code: 9005 }],
    ['dns-unreachable', { status: 500, code: 0 }],
    ['dns-unreachable', 'html'],
    ['dns-unreachable', 'cut'],
  ];
  const { api, make } = await scene(t);
  const before = JSON.stringify(api.rows);
  for (const [code, fault] of cases) {
    api.faults.push(fault);
    await t.rejects(
      make().list(signal),
      { code, message: SENTENCES[code], next: /.{20}/ },
      JSON.stringify(fault),
    );
  }
  api.faults.push('silent');
  await t.rejects(make().list(AbortSignal.timeout(300)), { code: 'dns-unreachable' }, 'silent');
  api.close();
  await t.rejects(make().list(signal), { code: 'dns-unreachable' }, 'nobody listens');
  t.equal(JSON.stringify(api.rows), before);
});

t.test('a record that another made or deleted meanwhile is no failure', async (t) => {
  const { api, converge } = await scene(t);
  for (const code of [81057, 81058, 81044]) {
    api.writeFaults.push({ status: 400, code });
    await converge(desired([set('', [`192.0.2.${code % 100}`])]));
    t.equal(api.writeFaults.length, 0);
    t.match(
      api.rows.filter(({ comment }) => comment === 'bornemisza:shop').map(({ content }) => content),
      [`192.0.2.${code % 100}`],
    );
  }
});

t.test('a read-only token is reported, and no message holds it', async (t) => {
  const { api, converge, make, tokenFile } = await scene(t);
  api.readOnly = true;
  const failure = await converge(desired([set('', ['192.0.2.1'])])).catch((error: unknown) => error);
  t.match(failure, { reason: { code: 'dns-token', message: SENTENCES['dns-token'], next: /DNS \/ Edit/ } });
  const { reason } = failure as { reason: { message: string; next: string } };
  t.notOk(`${reason.message}${reason.next}`.includes(TOKEN));
  for (const bad of ['', 'short', `${TOKEN}\nx: y`, 'ä'.repeat(40)]) {
    await writeFile(tokenFile, bad);
    await t.rejects(make().list(signal), { code: 'dns-token' }, bad);
  }
  await t.rejects(make({ tokenFile: `${tokenFile}.gone` }).list(signal), { code: 'dns-token' });
});

t.test('after a 429 nothing is called before the time, and never within five minutes', async (t) => {
  for (const [retryAfter, seconds] of [
    [60, 300],
    [900, 900],
  ] as const) {
    const { api, make, time } = await scene(t);
    time.stepMs = 0;
    time.ms = 1_000_000;
    const provider = make();
    api.faults.push({ status: 429, code: 971, retryAfter });
    await t.rejects(provider.list(signal), {
      code: 'dns-limited',
      message: `the provider accepts no calls for ${seconds / 60} min; the records of ${ZONE} are not updated`,
    });
    const calls = api.calls.length;
    time.ms += seconds * 1000 - 1;
    await t.rejects(provider.list(signal), { code: 'dns-limited' });
    t.equal(api.calls.length, calls, 'not called');
    time.ms += 1;
    time.stepMs = 10_000;
    t.ok((await provider.list(signal)).length > 100);
  }
});

t.test('sixty calls in five minutes are the most', async (t) => {
  const { api, make, time } = await scene(t);
  const provider = make();
  time.stepMs = 1000;
  api.rows = [];
  // A second passes with each call.
  let calls = 0;
  await t.rejects(
    (async () => {
      for (; calls < 100; calls += 1) await provider.list(signal);
    })(),
    { code: 'dns-limited' },
  );
  t.equal(calls, 60);
  t.equal(api.calls.length, 60);
});
