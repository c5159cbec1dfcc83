import { createPrivateKey, randomUUID, X509Certificate } from 'node:crypto';
import { mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from 'node:tls';
import t, { type Test } from 'tap';
import { AcmeClient } from '../../src/acme/client.ts';
import { SiteStore } from '../../src/daemon/identity/site.ts';
import { mayHave } from '../../src/daemon/identity/site-keeper.ts';
import { EMPTY_BUNDLE } from '../../src/plugins/certificates/desired.ts';
import { mergedBundles } from '../../src/plugins/certificates/merge.ts';
import { CertificatesPlugin, type CertificatesWanted } from '../../src/plugins/certificates/plugin.ts';
import { keyAuthorization, thumbprint } from '../../src/acme/jws.ts';
import { runCommand } from '../../src/host/command.ts';
import type { NameServer } from '../../src/host/txt-records.ts';
import type { DnsDesired } from '../../src/plugins/dns/desired.ts';
import { DnsPlugin } from '../../src/plugins/dns/plugin.ts';
import { Rfc2136Provider } from '../../src/plugins/dns/rfc2136.ts';
import { freePort } from '../support/free-port.ts';
import { until } from '../support/until.ts';
import { startBind, ZONE } from './bind-bed.ts';
import { EXTERNAL, type Pebble, startPebble } from './acme-bed.ts';
import { appDesired, Bed, converge, type Instance } from './haproxy-bed.ts';

/** The certificate of a site from nothing to the edge: real pebble, real HAProxy, and app nodes that come and go. */

const NAMES = ['shop.example', 'www.shop.example'];
const BY_HTTP = { challenge: 'http-01', dns: undefined } as const;
const DEADLINE = { deadlineMs: 60_000, everyMs: 20, works: true };

/** An app node as far as its certificate goes: what the daemon gives the plugin, and the bundle on its disk. */
class AppNode {
  readonly name: string;
  readonly store: SiteStore;
  readonly plugin: CertificatesPlugin;
  readonly directory: string;
  orders = false;
  nowMs = 0;
  /** Each look is later than any pause of a step that goes well: nothing here waits for the clock. */
  stepMs = 2000;
  wallOffsetMs = 0;
  /** Peer ids of app nodes that were removed. */
  readonly removed: string[] = [];
  readonly others: AppNode[] = [];
  nameServers: readonly NameServer[] = [];

  constructor(name: string, directory: string, wanted: Omit<CertificatesWanted, 'orders' | 'why'>) {
    this.name = name;
    this.directory = directory;
    this.store = new SiteStore(directory, EMPTY_BUNDLE);
    this.plugin = new CertificatesPlugin({
      userAgent: 'bornemisza/test',
      desired: () => this.#desired(),
      site: {
        get: () => this.store.get(),
        change: (next) => this.store.change(next),
        differing: () =>
          this.others.filter((each) => each.store.word !== this.store.word).map(({ name }) => name),
      },
      wallMs: () => Date.now() + this.wallOffsetMs,
      nowMs: () => (this.nowMs += this.stepMs),
      random: () => 0.5,
      nameServers: async () => this.nameServers,
    });
    this.wanted = wanted;
  }

  readonly wanted: Omit<CertificatesWanted, 'orders' | 'why'>;

  /** One run; @returns the kinds of what it did */
  async run(): Promise<string[]> {
    return (await converge(this.plugin, this.#desired())).map(({ kind }) => kind);
  }

  /** As `bornemisza plan` shows it. */
  async planned(): Promise<string[]> {
    const seen = await this.plugin.observe(new AbortController().signal);
    return this.plugin.plan(this.#desired(), seen).map(({ kind }) => kind);
  }

  #desired(): CertificatesWanted {
    return { ...this.wanted, orders: this.orders, why: 'by the test', removed: [...this.removed] };
  }

  report() {
    const desired = this.#desired();
    return this.plugin
      .observe(new AbortController().signal)
      .then((seen) => this.plugin.status(desired, seen));
  }
}

interface Site {
  readonly bed: Bed;
  readonly pebble: Pebble;
  readonly nodes: readonly AppNode[];
  /** HAProxy takes what the first node's bundle says. */
  readonly edge: () => Promise<void>;
  readonly served: () => Promise<X509Certificate>;
}

const EDGE = { name: 'edge', port: 80, tlsPort: 443 };

async function siteOf(t: Test, count = 3, edges: readonly (typeof EDGE)[] = [EDGE]): Promise<Site> {
  const bed = await Bed.make();
  t.teardown(() => bed.end());
  const address = bed.address(41);
  const pebble = await startPebble(t, { edgeAt: { address, port: 80 } });
  const caFile = join(bed.root, 'ca.pem');
  await writeFile(caFile, pebble.ca);
  const wanted = {
    names: NAMES,
    ...BY_HTTP,
    profile: undefined,
    directory: pebble.directoryUrl,
    contact: ['ops@shop.example'],
    termsAgreed: true,
    caFile,
    externalAccount: undefined,
    edges: edges.map((each) => ({ ...each, address })),
    removed: [],
  };
  const nodes: AppNode[] = [];
  for (let at = 1; at <= count; at += 1) {
    const directory = join(bed.root, `node${at}`);
    await mkdir(directory, { mode: 0o700 });
    nodes.push(new AppNode(`app${at}`, directory, wanted));
  }
  for (const each of nodes) each.others.push(...nodes.filter((other) => other !== each));
  const node = await bed.pki.leaf('app1', 'app');
  const plain = appDesired({ address, node, ca: bed.pki.ca, databasePort: await freePort() });
  const instance: Instance = await bed.launch('edge', plain);
  const edge = async (): Promise<void> => {
    const { account, current } = nodes.map(({ store }) => store.get()).reduce(mergedBundles);
    const challengeThumbprint = account && thumbprint(createPrivateKey(account.key));
    const site = current === undefined ? undefined : current.chain + current.key;
    await converge(instance.plugin, {
      ...plain,
      certificates: { ...plain.certificates, edge: site },
      edge: { ...plain.edge, challengeThumbprint },
    });
  };
  return { bed, pebble, nodes, edge, served: () => servedBy(address) };
}

function servedBy(host: string): Promise<X509Certificate> {
  const { promise, resolve, reject } = Promise.withResolvers<X509Certificate>();
  const socket = connect({ host, port: 443, servername: NAMES[0], rejectUnauthorized: false }, () => {
    resolve(new X509Certificate(socket.getPeerCertificate().raw));
    socket.destroy();
  });
  socket.on('error', reject);
  return promise;
}

/** What the exchange of the daemons comes to: all have the merged one. */
async function share(nodes: readonly AppNode[]): Promise<void> {
  const all = nodes.map(({ store }) => store.get()).reduce(mergedBundles);
  for (const { store } of nodes) await store.change((now) => mergedBundles(now, all));
}

/** Two app nodes at a CA whose checks the front answers: no edge is part of it. */
async function pairAt(t: Test, pebble: Pebble): Promise<[AppNode, AppNode]> {
  const root = join(t.testdir(), randomUUID());
  const wanted = {
    ...{ names: NAMES, profile: undefined, directory: pebble.directoryUrl, contact: [], termsAgreed: true },
    ...{ caFile: join(root, 'ca.pem'), externalAccount: undefined, edges: [], removed: [] },
    ...BY_HTTP,
  };
  const nodes = ['app1', 'app2'].map((name) => new AppNode(name, join(root, name), wanted));
  for (const { directory } of nodes) await mkdir(directory, { recursive: true, mode: 0o700 });
  await writeFile(wanted.caFile, pebble.ca);
  pebble.edge = (token) => {
    const ordering = nodes.find(({ orders, store }) => orders && store.get().next !== undefined);
    const { account } = ordering?.store.get() ?? {};
    return account && keyAuthorization(token, createPrivateKey(account.key));
  };
  pebble.lose = undefined;
  return nodes as [AppNode, AppNode];
}

/** The open order of a node, as the CA has it. */
function orderAt({ directoryUrl, ca }: Pebble, { store }: AppNode) {
  const { account, next } = store.get();
  const client = new AcmeClient({
    ...{ directoryUrl, ca, userAgent: 'bornemisza/test' },
    ...{ accountKey: createPrivateKey(account?.key ?? ''), accountUrl: account?.url },
  });
  return client.order(next?.url ?? '', new AbortController().signal);
}

const nothing = async (): Promise<void> => undefined;

/**
 * Runs who orders until all have a certificate; `takeover` may name who orders next, after each step.
 *
 * @param former the certificate that is to be replaced
 */
async function issue(
  { nodes, edge }: Pick<Site, 'nodes' | 'edge'>,
  takeover: (steps: readonly string[]) => void = () => undefined,
  former?: string,
) {
  const steps: string[] = [];
  await until(async () => {
    for (const each of nodes.filter(({ orders }) => orders)) {
      const made = await each.run();
      steps.push(...made);
      if (made.length > 0) takeover(steps);
    }
    await share(nodes);
    await edge();
    return nodes.every(({ store }) => {
      const { current, next } = store.get();
      return current !== undefined && current.fingerprint !== former && next === undefined;
    });
  }, DEADLINE);
  return steps;
}

const print = async (site: Site): Promise<string> =>
  (await site.served()).fingerprint256.replaceAll(':', '').toLowerCase();
type Calls = Pick<Pebble, 'answered'>;
const count = ({ answered }: Calls, call: RegExp): number =>
  answered.filter((each) => call.test(each.call) && each.status < 300).length;
const orders = (pebble: Calls): number => count(pebble, /^POST \/order-plz/);

t.test(
  'from nothing: one account, one order, one certificate at the edge and on all disks, 0600',
  async (t) => {
    const site = await siteOf(t);
    const [first] = site.nodes;
    if (first === undefined) throw new Error('a node');
    first.orders = true;
    const steps = await issue(site);
    t.strictSame([...new Set(steps)], ['account', 'order', 'answer', 'finalize', 'download']);
    t.equal(count(site.pebble, /^POST \/sign-me-up/), 1, 'one account');
    t.equal(orders(site.pebble), 1, 'one order');
    const served = await site.served();
    const found = await print(site);
    for (const { store, directory } of site.nodes) {
      t.equal(store.get().current?.fingerprint, found, 'the edge serves what each node has');
      t.equal((await stat(join(directory, 'site.json'))).mode & 0o777, 0o600);
    }
    t.equal(served.checkHost('www.shop.example'), 'www.shop.example');

    t.strictSame(await first.run(), [], 'nothing is left to do');
    const before = site.pebble.answered.length;
    const again = new AppNode('app1', first.directory, first.wanted);
    again.orders = true;
    await again.store.load();
    t.strictSame(await again.run(), [], 'nor after a restart');
    t.equal(site.pebble.answered.length, before, 'and the CA is not even asked');

    const { seen, alarms } = await again.report();
    t.match(seen, `shop.example, www.shop.example until `);
    t.strictSame(alarms, []);
    const bundle = again.store.get();
    for (const text of [JSON.stringify(await again.report()), again.store.word, ...steps])
      for (const key of [bundle.account?.key, bundle.current?.key])
        for (const line of (key ?? '').split('\n').filter((each) => each.length > 40))
          t.notOk(text.includes(line), 'no key in a report or a word of the record');

    // An operator at another node, who insists.
    const [, second = first] = site.nodes;
    const shown = await second.plugin.show(new AbortController().signal);
    t.match(shown, {
      current: { issuer: /Pebble/, sha256: found },
      edges: [{ name: 'edge', sha256: found }],
    });
    await t.rejects(second.plugin.renew({ force: false }), { code: 'certificate-limited', next: /--force/ });
    await second.plugin.renew({ force: true });
    await share(site.nodes);
    const seenAtEdge = new Set<string>();
    await until(async () => {
      await first.run();
      await share(site.nodes);
      seenAtEdge.add(await print(site));
      await site.edge();
      return first.store.get().current?.fingerprint !== found;
    }, DEADLINE);
    t.strictSame([...seenAtEdge], [found], 'the former is served until the next is proved');
    t.equal(await print(site), first.store.get().current?.fingerprint, 'and then the next');
    t.strictSame(await first.run(), [], 'one renewal, and no more');
    t.equal(orders(site.pebble), 2);
  },
);

/** Which node dies after how many steps, and what these are. */
const STEPS = ['account', 'account', 'order', 'answer', 'finalize', 'download'];
/** The account is there. */
const RENEWAL = ['order', 'order', 'answer', 'finalize', 'download'];

t.test(
  'the node that orders dies after any step, and another continues: still one certificate',
  async (t) => {
    const pebble = await startPebble(t);
    for (const [at, step] of STEPS.entries()) {
      const before = pebble.answered.length;
      const [first, second] = await pairAt(t, pebble);
      first.orders = true;
      const made = await issue({ nodes: [first, second], edge: nothing }, (steps) => {
        if (steps.length > at) [first.orders, second.orders] = [false, true];
      });
      const what = `after step ${at + 1}, ${step}`;
      t.strictSame(made, STEPS, what);
      const calls = { answered: pebble.answered.slice(before) };
      t.equal(count(calls, /^POST \/sign-me-up/), 1, `${what}: one account`);
      t.equal(orders(calls), 1, `${what}: one order`);
      t.equal(count(calls, /^POST \/finalize-order/), 1, `${what}: one signature`);
      t.strictSame(second.store.get(), first.store.get(), `${what}: both have it`);
      t.strictSame(await second.run(), [], `${what}: nothing is left to do`);
    }
  },
);

t.test('the CA receives no key, and checks nothing, that another node could not continue with', async (t) => {
  const pebble = await startPebble(t);
  const [first, second] = await pairAt(t, pebble);
  first.others.push(second);
  [first.orders, first.stepMs] = [true, 0];
  const stays = async (what: string): Promise<void> => {
    for (let look = 1; look <= 3; look += 1) {
      first.nowMs += 500;
      t.strictSame(await first.run(), [], what);
    }
    first.nowMs += 500;
    t.match((await first.report()).seen, /waits: app2 must get the keys first/, what);
  };
  t.strictSame(await first.run(), ['account']);
  await stays('both keys are on one disk alone');
  t.equal(pebble.answered.length, 0);
  await share([first, second]);
  for (const step of ['account', 'order']) t.strictSame(await first.run(), [step]);
  t.equal(second.store.get().next?.url, undefined, 'the other does not know the order yet');
  await stays('the address of the order is on one disk alone');
  t.equal(count(pebble, /^POST \/chalZ/), 0);
  await share([first, second]);
  first.nowMs += 500;
  t.strictSame(await first.run(), ['answer']);
  await until(async () => (await orderAt(pebble, first)).status === 'ready', DEADLINE);
  first.nowMs += 500;
  t.strictSame(await first.run(), ['finalize']);

  // A node that stays behind is not waited for: it asks when it is back.
  const [third, fourth] = await pairAt(t, pebble);
  third.others.push(fourth);
  [third.orders, third.stepMs] = [true, 0];
  t.strictSame(await third.run(), ['account']);
  t.strictSame(await third.run(), []);
  third.nowMs += 10_000;
  t.strictSame(await third.run(), ['account']);
});

t.test('it dies while the CA answers: its order is found, and signed once', async (t) => {
  const pebble = await startPebble(t);
  const cases: readonly (readonly [call: RegExp, orders: number])[] = [
    [/sign-me-up/, 1],
    // Nobody knows the address of the order that the CA has made.
    [/order-plz/, 2],
    [/chalZ/, 1],
    [/finalize-order/, 1],
    [/certZ/, 1],
  ];
  for (const [call, most] of cases) {
    const before = pebble.answered.length;
    const nodes = await pairAt(t, pebble);
    const [first, second] = nodes;
    first.orders = true;
    let lost = false;
    pebble.lose = (each) => !lost && call.test(each) && (lost = true);
    await until(async () => {
      const orderer = first.orders ? first : second;
      await orderer.run().catch((error: unknown) => {
        if (!lost || !first.orders) throw error;
        [first.orders, second.orders] = [false, true];
        for (const each of nodes) each.wallOffsetMs += 61_000;
      });
      await share(nodes);
      return second.store.get().current !== undefined;
    }, DEADLINE);
    const calls = { answered: pebble.answered.slice(before) };
    t.equal(second.orders, true, `${call}: the answer was lost`);
    t.equal(orders(calls), most, `${call}: orders`);
    t.equal(count(calls, /^POST \/finalize-order/), 1, `${call}: one signature`);
  }
});

t.test(
  'a full disk while the keys or the order are written is named, and costs no second certificate',
  async (t) => {
    const pebble = await startPebble(t);
    const nodes = await pairAt(t, pebble);
    const [first] = nodes;
    first.orders = true;
    await runCommand('mount', ['-t', 'tmpfs', '-o', 'size=32k,mode=0700', 'tmpfs', first.directory], {
      timeoutMs: 60_000,
    });
    const filler = join(first.directory, 'filler');
    const isFull = async (): Promise<void> => {
      await writeFile(filler, Buffer.alloc(64 * 1024)).catch(() => undefined);
      const error = {
        ...{ code: 'disk-full', outcome: 'retry', next: /df -h/ },
        message: /^The disk is full: .*\/site\.json could not be written\.$/,
      };
      await t.rejects(first.run(), error);
      const { length } = pebble.answered;
      for (let look = 1; look <= 3; look += 1) t.strictSame(await first.run(), [], 'not again at once');
      t.equal(pebble.answered.length, length);
      await rm(filler);
      first.nowMs += 60_000;
    };
    try {
      await isFull();
      t.equal(pebble.answered.length, 0, 'no key is used that is on no disk');
      for (const step of ['account', 'account']) t.strictSame(await first.run(), [step]);
      await isFull();
      t.equal(first.store.get().next?.url, undefined, 'the address of the order is lost');
      await issue({ nodes, edge: nothing });
    } finally {
      // The end of the test removes the directory.
      await runCommand('umount', ['-l', first.directory], { timeoutMs: 60_000 });
    }
    t.equal(count(pebble, /^POST \/sign-me-up/), 1);
    t.equal(orders(pebble), 2);
    t.equal(count(pebble, /^POST \/finalize-order/), 1, 'one signature');
  },
);

t.test('cut in two, both halves order: two certificates, and one of them wins everywhere', async (t) => {
  const pebble = await startPebble(t);
  const nodes = await pairAt(t, pebble);
  for (const node of nodes) {
    node.orders = true;
    await issue({ nodes: [node], edge: nothing });
  }
  const both = nodes.map(({ store }) => store.get().current?.fingerprint);
  t.equal(new Set(both).size, 2);
  await share(nodes);
  const [one, other] = nodes;
  t.strictSame(one.store.get(), other.store.get());
  t.equal(one.store.get().current?.fingerprint, both[1], 'the later one');
  for (const node of nodes) t.strictSame(await node.run(), [], 'nothing more is ordered');
  t.equal(orders(pebble), 2);
});

t.test('a CA that moves its window to now gets one renewal, and no more', async (t) => {
  const pebble = await startPebble(t);
  const [node] = await pairAt(t, pebble);
  node.orders = true;
  await issue({ nodes: [node], edge: nothing });
  const former = node.store.get().current?.fingerprint;
  const directory = pebble.answered.findLast(({ call }) => call === 'GET /dir')?.body ?? '{}';
  const { origin } = new URL(pebble.directoryUrl);
  const asked: string[] = [];
  const over = { start: '2026-01-01T00:00:00Z', end: '2026-01-02T00:00:00Z' };
  const later = (days: number): string => new Date(Date.now() + days * 86_400_000).toISOString();
  pebble.inject = (call) => {
    const json = { status: 200, headers: { 'retry-after': '60', 'content-type': 'application/json' } };
    if (call === 'GET /dir')
      return { ...json, body: JSON.stringify({ ...JSON.parse(directory), renewalInfo: `${origin}/ari` }) };
    if (!call.startsWith('GET /ari/')) return undefined;
    asked.push(call);
    const suggestedWindow = asked[0] === call ? over : { start: later(30), end: later(31) };
    return { ...json, body: JSON.stringify({ suggestedWindow }) };
  };
  // No second certificate within a day, whatever the window says.
  node.wallOffsetMs = 25 * 3_600_000;
  node.nowMs += 600_000;
  for (let look = 1; look <= 2; look += 1) t.strictSame(await node.planned(), ['window'], 'it is only shown');
  t.equal(asked.length, 1);
  t.strictSame(await node.run(), ['window']);
  t.match(node.store.get().renewal, { fingerprint: former });
  const steps = await issue({ nodes: [node], edge: nothing }, () => undefined, former);
  t.strictSame(steps, RENEWAL);
  t.not(node.store.get().current?.fingerprint, former);
  for (let hours = 1; hours <= 3; hours += 1) {
    node.nowMs += 3_600_000;
    t.strictSame(await node.run(), [], 'the next has a window of its own');
  }
  t.equal(new Set(asked).size, 2);
  t.ok(asked.length > 4, `asked ${asked.length} times`);
  t.equal(orders(pebble), 2);
});

t.test(
  'a CA that makes accounts only for its customers is asked with its key, which stays in its file',
  async (t) => {
    const pebble = await startPebble(t, { externalAccounts: true });
    const directory = t.testdir({ 'ca.pem': pebble.ca });
    const keyFile = join(directory, 'eab.key');
    const wanted = {
      ...{ names: NAMES, profile: undefined, directory: pebble.directoryUrl, contact: [], termsAgreed: true },
      ...{ caFile: join(directory, 'ca.pem'), edges: [], removed: [], ...BY_HTTP },
    };
    const nodeWith = async (externalAccount: CertificatesWanted['externalAccount']) => {
      const node = new AppNode('app1', directory, { ...wanted, externalAccount });
      node.orders = true;
      await node.store.load();
      await node.store.change((now) => ({ ...now, notBeforeMs: 0 }));
      return node;
    };
    const plain = await nodeWith(undefined);
    t.strictSame(await plain.run(), ['account'], 'the account’s key is made');
    await t.rejects(plain.run(), { code: 'certificate-account', message: /its customers/, next: /eab_kid/ });
    const bound = { kid: EXTERNAL.kid, keyFile };
    const cases: readonly (readonly [what: string, content: string | undefined, message: RegExp])[] = [
      ['no file', undefined, /eab\.key cannot be read/],
      ['an empty file', '', /does not hold one key/],
      ['two words', `${EXTERNAL.kid} ${EXTERNAL.hmacKey}`, /does not hold one key/],
      ['a file that is no key', 'x'.repeat(2000), /cannot be read/],
    ];
    for (const [what, content, message] of cases) {
      if (content !== undefined) await writeFile(keyFile, content);
      const node = await nodeWith(bound);
      await t.rejects(node.run(), { code: 'certificate-account', message, next: /sudo install/ }, what);
      const text = JSON.stringify([await node.report(), node.store.get()]);
      t.notOk(text.includes(EXTERNAL.hmacKey), `${what}: no report has the key`);
    }
    await writeFile(keyFile, `${Buffer.alloc(48, 7).toString('base64url')}\n`);
    const other = await nodeWith(bound);
    await t.rejects(other.run(), { code: 'certificate-account' }, 'the key of somebody else');
    t.equal(count(pebble, /^POST \/sign-me-up/), 0, 'no account yet');
    await writeFile(keyFile, `${EXTERNAL.hmacKey}==\n`);
    const node = await nodeWith(bound);
    t.strictSame(await node.run(), ['account']);
    t.ok(node.store.get().account?.url, 'the CA has made it');
    t.equal(count(pebble, /^POST \/sign-me-up/), 1);
    const held = JSON.stringify(node.store.get());
    t.notOk(held.includes(EXTERNAL.hmacKey), 'the key is in no bundle');
  },
);

t.test('a CA that says when to come back is left alone until then, also after a restart', async (t) => {
  const { pebble, nodes } = await siteOf(t, 1);
  const [node] = nodes;
  if (node === undefined) throw new Error('a node');
  node.orders = true;
  const problem = '{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}';
  const headers = { 'content-type': 'application/problem+json', 'retry-after': '60' };
  pebble.inject = (call) =>
    call.includes('sign-me-up') ? { status: 429, headers, body: problem } : undefined;
  await node.run();
  await t.rejects(node.run(), { code: 'certificate-limited', message: /too many/ });
  const calls = pebble.answered.length;
  const again = new AppNode('app1', node.directory, node.wanted);
  await again.store.load();
  again.orders = true;
  t.strictSame(await again.run(), []);
  t.equal(pebble.answered.length, calls, 'no call');
  t.match((await again.report()).seen, /no call of the CA before/);
  t.match((await node.report()).alarms, [{ code: 'certificate-limited' }]);
  again.wallOffsetMs = 61_000;
  pebble.inject = undefined;
  t.strictSame(await again.run(), ['account']);
  t.ok(pebble.answered.length > calls, 'and after it the account is made');
});

t.test(
  'a name that leads elsewhere is refused with the CA’s reason, and not ordered again at once',
  async (t) => {
    const { pebble, nodes } = await siteOf(t, 1, []);
    const [node] = nodes;
    if (node === undefined) throw new Error('a node');
    node.orders = true;
    // HAProxy is not told of the account, as where the name leads to somebody else's server.
    await until(async () => (await node.run()).includes('abandon'), DEADLINE);
    t.match(node.store.get(), { next: undefined, recent: [{ outcome: 'refused', names: NAMES.join(' ') }] });
    t.strictSame(await node.run(), [], 'held for a time');
    const { alarms } = await node.report();
    t.match(alarms, [
      { code: 'certificate-refused', message: /could not check (www\.)?shop\.example/, next: /port 80/ },
    ]);
    t.equal(orders(pebble), 1);
  },
);

t.test(
  'an app node is removed: other keys for account and site, and the former certificate revoked',
  async (t) => {
    const site = await siteOf(t, 2);
    const [first, second] = site.nodes;
    if (first === undefined || second === undefined) throw new Error('two nodes');
    first.orders = true;
    await issue(site);
    const before = first.store.get();
    const former = await site.served();
    first.removed.push('peer9');
    const steps: string[] = [];
    let lost = 0;
    // The CA's first word on the new key never arrives.
    site.pebble.lose = (call) => call.includes('rollover') && (lost += 1) === 1;
    await until(async () => {
      const made = await first.run().catch((error: unknown): string[] => {
        if (lost !== 1) throw error;
        first.wallOffsetMs += 61_000;
        first.nowMs += 61_000;
        return [];
      });
      steps.push(...made);
      if (made.includes('exclude'))
        t.notOk(
          mayHave('app', 'peer9', first.store.get()),
          'it gets none of the new keys, from the first on',
        );
      await share(site.nodes);
      await site.edge();
      return steps.includes('revoke');
    }, DEADLINE);
    t.strictSame(
      [...new Set(steps)],
      ['exclude', 'rekey', 'order', 'answer', 'finalize', 'download', 'revoke'],
    );
    const after = second.store.get();
    t.not(after.account?.key, before.account?.key, 'the account has another key');
    t.equal(after.account?.url, before.account?.url, 'and is the same');
    t.not(after.current?.key, before.current?.key, 'the site has another key');
    t.equal(await print(site), after.current?.fingerprint);
    t.strictSame(await site.pebble.statusOf(former.serialNumber), {
      ...(await site.pebble.statusOf(former.serialNumber)),
      ...{ Status: 'Revoked', Reason: 1 },
    });
    const now = await site.pebble.statusOf((await site.served()).serialNumber);
    t.equal(now.Status, 'Valid');
    t.equal(count(site.pebble, /^POST \/sign-me-up/), 1, 'no further account');
    t.equal(orders(site.pebble), 2);
    const old = new AcmeClient({
      ...{ directoryUrl: site.pebble.directoryUrl, userAgent: 'bornemisza/test', ca: site.pebble.ca },
      ...{ accountKey: createPrivateKey(before.account?.key ?? ''), accountUrl: before.account?.url },
    });
    t.equal(
      await old.isKnown(new AbortController().signal),
      false,
      'the CA refuses the former key of the account',
    );
    t.strictSame(await first.run(), [], 'nothing is left to do');
  },
);

t.test(
  'a certificate of a shorter life takes the place of a longer one at every node, and stays',
  async (t) => {
    const site = await siteOf(t, 2);
    const [first, second] = site.nodes;
    if (first === undefined || second === undefined) throw new Error('two nodes');
    first.orders = true;
    await issue(site);
    // As of a profile whose certificates end later than those that the CA signs now.
    for (const { store } of site.nodes)
      await store.change((now) => ({
        ...now,
        current: now.current && {
          ...now.current,
          profile: 'long',
          endMs: now.current.endMs + 90 * 86_400_000,
        },
      }));
    const before = first.store.get().current?.fingerprint;
    first.wallOffsetMs = 25 * 3_600_000;
    await until(async () => {
      await first.run();
      await share(site.nodes);
      await site.edge();
      return first.store.get().current?.fingerprint !== before;
    }, DEADLINE);
    await share(site.nodes);
    t.not(second.store.get().current?.fingerprint, before, 'the other node took it');
    t.strictSame(await first.run(), [], 'and nothing is ordered once more');
    t.equal(orders(site.pebble), 2);
  },
);

t.test('an edge that does not answer yet is waited for before the CA checks', async (t) => {
  const site = await siteOf(t, 1);
  const [node] = site.nodes;
  if (node === undefined) throw new Error('a node');
  node.orders = true;
  await until(async () => {
    await node.run();
    return node.store.get().next?.url !== undefined;
  }, DEADLINE);
  t.strictSame(await node.run(), []);
  t.match((await node.report()).seen, 'the edge of edge does not answer the CA');
  t.equal(count(site.pebble, /^POST \/chalZ/), 0, 'no check was asked for');
  await issue(site);
  t.equal(orders(site.pebble), 1);
});

t.test(
  'an operator revokes: the next certificate and then the revocation, or with --now the other way',
  async (t) => {
    const pebble = await startPebble(t);
    const cases: readonly (readonly [reason: 'keyCompromise' | 'superseded', now: boolean, code: number])[] =
      [
        ['keyCompromise', false, 1],
        ['superseded', true, 4],
      ];
    for (const [reason, now, code] of cases) {
      const [first, second] = await pairAt(t, pebble);
      first.orders = true;
      await issue({ nodes: [first, second], edge: nothing });
      const before = second.store.get();
      const former = new X509Certificate(before.current?.chain ?? '');
      const said = await second.plugin.revoke({ reason, now });
      t.match(said, {
        message: now ? / is revoked now; / : / is revoked when all edges serve the next one; /,
      });
      await share([first, second]);
      const steps: string[] = [];
      await until(async () => {
        steps.push(...(await first.run()));
        // No edge is part of it: after ten minutes the former one is revoked all the same.
        if (steps.at(-1) === 'download') first.nowMs += 600_000;
        await share([first, second]);
        return steps.includes('revoke') && steps.includes('download');
      }, DEADLINE);
      t.strictSame(steps, now ? ['rekey', 'revoke', ...RENEWAL] : ['rekey', ...RENEWAL, 'revoke'], reason);
      t.match(await pebble.statusOf(former.serialNumber), { Status: 'Revoked', Reason: code });
      const after = second.store.get();
      t.match(after, { exposed: [], current: { revoked: false }, account: { url: before.account?.url } });
      t.not(after.current?.key, before.current?.key, `${reason}: another key`);
      t.not(after.account?.key, before.account?.key, `${reason}: also of the account`);
      const next = new X509Certificate(after.current?.chain ?? '');
      t.match(await pebble.statusOf(next.serialNumber), { Status: 'Valid' });
      t.strictSame(await first.run(), [], `${reason}: nothing is left to do`);
    }
  },
);

const WILD = ['*.shop.example', 'shop.example'];

/**
 * Two app nodes at a CA that asks a real BIND: the first orders, the second writes the records.
 *
 * @param more how the second reaches BIND
 */
async function pairByDns(t: Test, more: { readonly port?: number } = {}) {
  const bind = await startBind(t, '_acme-challenge IN TXT "of-another-program"');
  const address = `127.0.0.1:${bind.port}`;
  const pebble = await startPebble(t, { namesAt: address });
  const root = join(t.testdir(), randomUUID());
  const wanted = {
    ...{ names: WILD, profile: undefined, directory: pebble.directoryUrl, contact: [], termsAgreed: true },
    ...{ caFile: join(root, 'ca.pem'), externalAccount: undefined, edges: [], removed: [] },
    challenge: 'dns-01' as const,
    dns: { zone: ZONE, server: undefined, writer: 'app2/app writes them' },
  };
  const nodes = ['app1', 'app2'].map((name) => new AppNode(name, join(root, name), wanted));
  for (const { directory } of nodes) await mkdir(directory, { recursive: true, mode: 0o700 });
  await writeFile(wanted.caFile, pebble.ca);
  const [first, second] = nodes as [AppNode, AppNode];
  for (const node of nodes) node.nameServers = [{ name: 'ns.shop.example', address }];
  first.orders = true;
  const { keyFile, provider } = bind;
  const reached = new Rfc2136Provider({
    zone: ZONE,
    server: '127.0.0.1',
    keyFile,
    port: more.port ?? bind.port,
  });
  const answers = () => second.store.get().next?.answers ?? [];
  const records = (challenges: DnsDesired['challenges'] = answers()): DnsDesired => ({
    ...{ zone: ZONE, owner: 'shop', writer: true, why: 'this node writes them', sets: [], doubtful: [] },
    challenges,
  });
  const plugin = new DnsPlugin({
    provider: reached,
    desired: records,
    ask: async () => true,
    nowMs: () => 0,
  });
  t.teardown(() => plugin.close());
  const { signal } = new AbortController();
  const texts = async (): Promise<string[]> =>
    (await provider.list(signal))
      .filter(({ type, name }) => type === 'TXT' && name.includes('acme-challenge'))
      .map(({ name, value, ttlS }) => `${name} ${ttlS} ${value}`);
  return { pebble, nodes, first, second, texts, write: (of = answers()) => converge(plugin, records(of)) };
}

const FOREIGN = ['_acme-challenge.shop.example 300 "of-another-program"'];

t.test(
  'a wildcard by dns-01: another node writes, the node that orders dies, and only the founder’s TXT is left',
  async (t) => {
    for (const after of ['publish', 'answer']) {
      const { pebble, nodes, first, second, texts, write } = await pairByDns(t);
      const edge = async (): Promise<void> => {
        const there = (await write()).length > 0 || second.store.get().next?.answers !== undefined;
        if (there) t.ok((await texts()).includes(FOREIGN[0] ?? ''), 'the founder’s value stays');
      };
      const steps = await issue({ nodes, edge }, (made) => {
        if (made.includes(after)) [first.orders, second.orders] = [false, true];
      });
      t.equal(second.orders, true, `${after}: another took over`);
      t.strictSame(
        [...new Set(steps)],
        ['account', 'order', 'publish', 'answer', 'finalize', 'download'],
        `${after}: steps`,
      );
      t.equal(orders(pebble), 1, `${after}: one order`);
      t.equal(count(pebble, /^POST \/finalize-order/), 1, `${after}: one signature`);
      const leaf = new X509Certificate(second.store.get().current?.chain ?? '');
      t.equal(leaf.checkHost('any.shop.example'), '*.shop.example', after);
      await write();
      t.strictSame(await texts(), FOREIGN, `${after}: nothing of ours is left in the zone`);
      t.strictSame(second.store.get(), first.store.get(), `${after}: both have it`);
    }
  },
);

t.test('the CA is not asked to check before the name servers have the records', async (t) => {
  const { pebble, nodes, first, second, texts, write } = await pairByDns(t);
  const run = async (): Promise<string[]> => {
    const made = await first.run();
    await share(nodes);
    return made;
  };
  await until(async () => (await run()).includes('publish'), DEADLINE);
  for (let look = 1; look <= 3; look += 1) t.strictSame(await run(), [], 'nobody writes the records');
  const { seen, alarms } = await first.report();
  t.match(
    seen,
    /waits: _acme-challenge\.shop\.example is not at ns\.shop\.example yet; .*app2\/app writes them/,
  );
  t.strictSame(alarms, []);
  first.wallOffsetMs = 121_000;
  first.nowMs += 15_000;
  t.match((await first.report()).alarms, [
    { code: 'certificate-dns-not-seen', message: /is not at ns\.shop\.example yet after two minutes/ },
  ]);
  first.nameServers = [{ name: 'deaf.shop.example', address: `127.0.0.1:${await freePort()}` }];
  first.nowMs += 15_000;
  t.match((await first.report()).seen, /no name server of shop\.example answers/);
  first.nameServers = second.nameServers;
  t.equal(count(pebble, /chalZ/), 0, 'the CA was not asked');

  // A value of a former order, whose end nobody saw.
  await write([{ name: `_acme-challenge.${ZONE}`, value: 'x'.repeat(43) }]);
  await write();
  t.equal((await texts()).length, 7, 'three values, each with its mark, beside the founder’s');
  await issue({ nodes, edge: async () => void (await write()) });
  t.strictSame((await first.report()).alarms, []);
  await write();
  t.strictSame(await texts(), FOREIGN);
  t.equal(orders(pebble), 1);
});

t.test(
  'a DNS server that takes no updates delays the order, and a refused check says what to compare',
  async (t) => {
    const { pebble, nodes, first, write } = await pairByDns(t, { port: await freePort() });
    const run = async (): Promise<string[]> => {
      const made = await first.run();
      await share(nodes);
      return made;
    };
    await until(async () => (await run()).includes('publish'), DEADLINE);
    await t.rejects(write(), { code: 'dns-unreachable' });
    t.strictSame(await run(), []);
    t.equal(count(pebble, /chalZ/), 0);
    // The name servers that this host finds are not those that the CA finds.
    const other = await startBind(t, (first.store.get().next?.answers ?? []).map(zoneLine).join('\n'));
    first.nameServers = [{ name: 'ns.elsewhere.example', address: `127.0.0.1:${other.port}` }];
    await until(async () => (await run()).includes('abandon'), DEADLINE);
    t.match((await first.report()).alarms, [
      {
        code: 'certificate-refused',
        message: /could not check shop\.example/,
        next: /name servers .*dig NAME NS/,
      },
    ]);
  },
);

const zoneLine = ({ name, value }: { readonly name: string; readonly value: string }): string =>
  `${name}. IN TXT "${value}"`;
