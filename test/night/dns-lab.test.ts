import { isDeepStrictEqual } from 'node:util';
import t from 'tap';
import type { StatusAnswer } from '../../src/daemon/control/api.ts';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { Outside, ZONE } from '../lab/outside.ts';
import { until } from '../support/until.ts';
import { daemonOf, haproxyOf, PATIENCE_MS, slackMs } from '../integration/cluster-bed.ts';

/**
 * The records of a cluster at a real BIND on the internet's side, as any resolver gets them, and the certificate of its
 * site from a real pebble there.
 */
t.setTimeout(600_000);

let cluster: Cluster;
let outside: Outside;
const ask = (name: string, type = 'A'): Promise<string> => outside.ask(name, type);
const waitFor = (name: string, type: string, is: string): Promise<boolean> =>
  until(async () => (await ask(name, type)) === is || Promise.reject(new Error(await ask(name, type))), {
    deadlineMs: 2 * PATIENCE_MS,
    everyMs: 100,
    what: `${name} ${type}: ${is}`,
  });

t.before(async () => {
  outside = await Outside.prepare(t.testdir());
  cluster = await Cluster.create({
    app: 2,
    floating: false,
    configure: async (host, _role, lab) => {
      if (host.name === 'app1') await outside.startNames(lab);
      await outside.useNames(host);
    },
  });
  await cluster.settled(PATIENCE_MS);
});
t.teardown(async () => {
  outside?.close();
  await cluster?.close();
});

const written = async (name: string): Promise<string | undefined> => {
  const text = await cluster.instance(name).host.must(['bornemisza', 'status', '--json']);
  return (JSON.parse(text) as StatusAnswer).plugins.find((each) => each.name === 'dns')?.seen;
};
const both = (): string =>
  cluster.instances
    .map(({ host }) => host.publicAddress)
    .sort()
    .join(' ');

t.test('the server has the records of a join beside those of the founder', async (t) => {
  await waitFor(ZONE, 'A', both());
  await waitFor(`www.${ZONE}`, 'A', both());
  await waitFor(
    `_app._tcp.${ZONE}`,
    'SRV',
    '1 0 4101 internal.app1.shop.example. 1 0 4101 internal.app2.shop.example.',
  );
  t.equal(await ask(`internal.app2.${ZONE}`), cluster.instance('app2').host.privateAddress);
  t.equal(await ask(`app2.${ZONE}`), cluster.instance('app2').host.publicAddress);
  t.equal(await ask(ZONE, 'MX'), '10 mail.shop.example.');
  await until(async () => (await written('app1'))?.endsWith('this node writes them') === true, {
    what: 'writer',
  });
  t.match(await written('app2'), 'app1/app writes them');
  t.match(await cluster.instance('app1').host.must(['bornemisza', 'plan']), 'Nothing to change');
  const doctor = await cluster.instance('app1').host.exec(['bornemisza', 'doctor', '--json']);
  t.match(doctor.stdout, 'only root and the daemon can read /etc/bornemisza/dns.key');
});

/** SHA-256 of what visitors are shown, by the name of the node. */
async function shown(name: string): Promise<string> {
  const { publicAddress } = cluster.instance(name).host;
  const script = `openssl s_client -connect ${publicAddress}:443 -servername ${ZONE} </dev/null 2>/dev/null |
    openssl x509 -noout -fingerprint -sha256 -ext subjectAltName`;
  return (await cluster.lab.client.exec(['sh', '-c', script])).stdout;
}

t.test('one app node orders a certificate, one time, and every edge shows it', async (t) => {
  // Every name leads to app2, and app1 is the one that orders.
  await outside.startCa(cluster.lab, cluster.instance('app2').host.publicAddress);
  for (const { host } of cluster.instances) {
    await outside.useCa(host, [ZONE, `www.${ZONE}`]);
    await host.must(['systemctl', 'restart', 'bornemisza@app.service']);
  }
  const certificate = await until(
    async () => {
      const [one, other] = [await shown('app1'), await shown('app2')];
      const same = one === other && one.includes(`DNS:www.${ZONE}`);
      return same ? one : Promise.reject(new Error(`${one}\n${other}\n${await said()}`));
    },
    { deadlineMs: 2 * PATIENCE_MS, everyMs: 500, what: 'both edges show the certificate' },
  );
  t.match(certificate, /sha256 Fingerprint=/i);
  const log = await outside.caLog();
  const count = (what: RegExp): number => log.match(what)?.length ?? 0;
  // A POST that is sent again with the same key finds the account that it made.
  const accounts = [...log.matchAll(/There are now (\d+) accounts in memory/g)].map(([, now]) => now);
  t.strictSame(accounts, ['1'], 'one account');
  t.equal(count(/POST \/order-plz -> calling handler/g), 1, 'one order');
  t.match(await cluster.instance('app1').host.must(['bornemisza', 'plan']), 'Nothing to change');
  // The bundle goes on after the certificate: which order it came from, and when to renew.
  const bundle = await until(
    async () => {
      const held = await Promise.all(
        cluster.instances.map(({ host }) => host.readFile('/var/lib/bornemisza/app/site.json')),
      );
      const [one, other] = held.map((text) => JSON.parse(text) as Record<string, unknown>);
      return isDeepStrictEqual(one, other)
        ? held.join('')
        : Promise.reject(new Error(Object.keys(one ?? {}).join()));
    },
    { deadlineMs: PATIENCE_MS, everyMs: 200, what: 'both have the same keys' },
  );
  // Every P-256 key begins with the same 48 characters.
  const secret = /KEY-----\\n[A-Za-z0-9+/]{48}([A-Za-z0-9+/]{16})/g;
  const keys = new Set([...bundle.matchAll(secret)].map(([, key = '']) => key));
  t.equal(keys.size, 2, 'of the account, and of the certificate');
  for (const { host } of cluster.instances) {
    const texts = await host.must([
      ...[
        'sh',
        '-c',
        'journalctl -o json --no-pager; bornemisza status --json; bornemisza members --json; ps axww',
      ],
    ]);
    const trail = await host.readFile('/var/lib/bornemisza/app/audit.jsonl');
    t.notOk((texts + trail).includes(outside.keySecret), 'nor the key of the zone');
    for (const key of keys)
      t.notOk((texts + trail).includes(key), 'no key in journal, trail, record or answer');
  }
});

/** Waits until each of the two app nodes holds the other for that. @returns when, performance.now */
async function eachHoldsTheOther(state: 'alive' | 'dead'): Promise<number> {
  const [app1, app2] = [cluster.instance('app1'), cluster.instance('app2')];
  const isSo = async (at: Instance, other: Instance): Promise<boolean> =>
    (await cluster.members(at)).find(({ name }) => name === other.name)?.state === state;
  await until(async () => (await isSo(app1, app2)) && (await isSo(app2, app1)), {
    ...{ deadlineMs: 2 * PATIENCE_MS, everyMs: 50, what: `each holds the other for ${state}` },
  });
  return performance.now();
}

async function cutInTwo(): Promise<void> {
  await cluster.instance('app2').host.cut({ device: 'private' });
  await eachHoldsTheOther('dead');
}

/** From the moment at which the members reach each other: that can be up to a minute after a long cut. */
const WINS_WITHIN_MS = 5000;

t.test(
  'cut in two, both halves order; when the cut is healed, the later certificate is at both edges',
  async (t) => {
    const seen = new Set([await shown('app1')]);
    await cutInTwo();
    for (const name of ['app1', 'app2']) {
      await cluster.instance(name).host.must(['bornemisza', 'certificate', 'renew', '--force']);
      const other = await until(
        async () => {
          const now = await shown(name);
          const isNew = now.includes(`DNS:www.${ZONE}`) && !seen.has(now);
          return isNew ? now : Promise.reject(new Error(now));
        },
        { deadlineMs: 2 * PATIENCE_MS, everyMs: 500, what: `another certificate at ${name}` },
      );
      seen.add(other);
    }
    const [, one, other] = [...seen];
    t.equal(await shown('app1'), one, 'app1 has not heard of that of app2');
    const { host } = cluster.instance('app2');
    const slack = await slackMs(host);
    await host.heal();
    const healedMs = performance.now();
    const later = until(
      async () => {
        const both = [await shown('app1'), await shown('app2')];
        return both.every((each) => each === other) || Promise.reject(new Error(both.join('\n')));
      },
      { deadlineMs: 3 * PATIENCE_MS, everyMs: 100, what: 'the later one is at both edges' },
    ).then(() => performance.now());
    const [aliveMs, sameMs] = await Promise.all([eachHoldsTheOther('alive'), later]);
    const tookMs = sameMs - aliveMs;
    const [heard, took, more] = [aliveMs - healedMs, tookMs, slack].map(Math.round);
    t.comment(`members alive ${heard} ms after healing, one certificate ${took} ms later (slack ${more} ms)`);
    t.ok(tookMs <= WINS_WITHIN_MS + slack);
    await cluster.settled(PATIENCE_MS);
    t.match(await host.must(['bornemisza', 'plan']), 'Nothing to change');
    const orders = (await outside.caLog()).match(/POST \/order-plz -> calling handler/g)?.length;
    t.equal(orders, 3, 'nothing more was ordered');
  },
);

const said = (): Promise<string> => cluster.instance('app1').host.must(['bornemisza', 'status', '--json']);

t.test(
  'a wildcard comes by dns-01 and is replaced when an operator revokes it; no TXT is left',
  async (t) => {
    const directory = await outside.startDnsCa(cluster.lab);
    const names = `names = ["*.${ZONE}", "${ZONE}"]\\nchallenge = "dns-01"`;
    const edit = `s|^names = .*|${names}|; s|^directory = .*|directory = "${directory}"|`;
    for (const { host } of cluster.instances) {
      await host.must(['sed', '-i', edit, '/etc/bornemisza/app.toml']);
      await host.must(['bornemisza', 'config', 'check']);
      await host.must(['systemctl', 'restart', 'bornemisza@app.service']);
    }
    const both = async (other = ''): Promise<string> =>
      until(
        async () => {
          const [one, two] = [await shown('app1'), await shown('app2')];
          const good = one === two && one.includes(`DNS:*.${ZONE}`) && one !== other;
          return good ? one : Promise.reject(new Error(`${one}\n${two}\n${await said()}`));
        },
        { deadlineMs: 2 * PATIENCE_MS, everyMs: 500, what: 'both edges show another wildcard' },
      );
    const gone = (): Promise<boolean> => waitFor(`_acme-challenge.${ZONE}`, 'TXT', '');
    const first = await both();
    await gone();
    const app2 = cluster.instance('app2').host;
    t.match(await app2.must(['bornemisza', 'certificate', 'show']), 'checks by dns-01');
    const answer = await app2.must(['bornemisza', 'certificate', 'revoke', '--yes']);
    t.match(answer, /is revoked when all edges serve the next one; .* at once; app1\/app orders/);
    await both(first);
    await gone();
    const trail = async (name: string): Promise<string> =>
      cluster.instance(name).host.must(['bornemisza', 'events', '--json']);
    t.match(await trail('app2'), 'certificates revoke keyCompromise false', 'the trail says who asked');
    await until(async () => (await trail('app1')).includes('revoke the former certificate'), {
      deadlineMs: PATIENCE_MS,
      everyMs: 1000,
      what: 'the CA has revoked the former one',
    });
    t.equal(await ask(ZONE, 'MX'), '10 mail.shop.example.');
  },
);

/** An edge is taken for dead after three questions in 15 s. */
const ASKED_FOR_MS = 25_000;

t.test('a cut of the private network takes no address out while the edges answer', async (t) => {
  await cutInTwo();
  const [beganMs, seen] = [performance.now(), new Set<string>()];
  await until(
    async () => {
      seen.add(await ask(ZONE));
      return performance.now() - beganMs > ASKED_FOR_MS;
    },
    { deadlineMs: 2 * ASKED_FOR_MS, everyMs: 100, what: 'the edges are asked for long enough' },
  );
  t.strictSame([...seen], [both()]);
  await cluster.instance('app2').host.heal();
  await cluster.settled(PATIENCE_MS);
  t.equal(await ask(ZONE), both());
});

t.test(
  'a dead daemon keeps its address while its edge answers, and loses it when that is silent too',
  async (t) => {
    const app2 = cluster.instance('app2');
    await app2.host.mask(daemonOf(app2));
    await app2.host.kill(daemonOf(app2), 'SIGKILL', 'all');
    await until(
      async () => {
        const row = (await cluster.members(cluster.instance('app1'))).find(({ name }) => name === 'app2/app');
        return row?.state === 'dead' || Promise.reject(new Error(row?.state));
      },
      { deadlineMs: PATIENCE_MS, what: 'app2 is dead' },
    );
    t.equal(await ask(ZONE), both());
    const began = performance.now();
    await app2.host.stop(haproxyOf(app2));
    await waitFor(ZONE, 'A', cluster.instance('app1').host.publicAddress);
    t.comment(`gone ${Math.round((performance.now() - began) / 100) / 10} s after the edge`);
    t.match(await ask(`_app._tcp.${ZONE}`, 'SRV'), 'internal.app2', 'it can still be found');
    const trail = await cluster.instance('app1').host.must(['bornemisza', 'events', '--json']);
    t.match(trail, 'no longer answers', 'the trail says why');
    await app2.host.start(haproxyOf(app2));
    await app2.host.unmask(daemonOf(app2));
    await app2.host.start(daemonOf(app2));
    await waitFor(ZONE, 'A', both());
  },
);

const WRITES_WITHIN_MS = 5000;

t.test('the next node writes when the writer is dead', async (t) => {
  const app1 = cluster.instance('app1');
  await cluster.settled(PATIENCE_MS);
  await app1.host.mask(daemonOf(app1));
  const app2 = cluster.instance('app2');
  const slack = await slackMs(app2.host);
  await app1.host.kill(daemonOf(app1), 'SIGKILL', 'all');
  const beganMs = performance.now();
  await until(
    async () => {
      const dns = (await cluster.status(app2)).plugins.find(({ name }) => name === 'dns');
      return dns?.seen?.endsWith('this node writes them') === true;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 50, what: 'app2 writes' },
  );
  const tookMs = performance.now() - beganMs;
  t.comment(`the next writer after ${Math.round(tookMs)} ms (slack ${Math.round(slack)} ms)`);
  t.ok(tookMs <= WRITES_WITHIN_MS + slack);
  await app1.host.stop(haproxyOf(app1));
  await waitFor(ZONE, 'A', cluster.instance('app2').host.publicAddress);
  t.equal(await ask(ZONE, 'MX'), '10 mail.shop.example.');
});
