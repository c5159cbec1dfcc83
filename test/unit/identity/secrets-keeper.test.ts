import { mkdir, readFile, stat } from 'node:fs/promises';
import t, { type Test } from 'tap';
import type { ExchangeDependencies } from '../../../src/daemon/identity/exchange.ts';
import {
  keepAppSecrets,
  keepDbSecrets,
  SecretsKeeper,
  SECRETS_TAG,
} from '../../../src/daemon/identity/secrets-keeper.ts';
import { SecretsHandOver } from '../../../src/daemon/identity/secrets-hand-over.ts';
import type { NodeCertificate } from '../../../src/daemon/identity/keys/chain.ts';
import { LEFT, putOut } from '../../../src/daemon/identity/roster/removal.ts';
import { Roster } from '../../../src/daemon/identity/roster/roster.ts';
import {
  answerSecretsRequest,
  createSecrets,
  type DbSecrets,
  encodeSecrets,
  rankOf,
  rollAppKeys,
  SecretsStore,
} from '../../../src/daemon/identity/secrets.ts';
import type { Log } from '../../../src/daemon/process/log.ts';
import type { PeerId } from '../../../src/daemon/membership/types.ts';
import { NOW_MS, testCluster } from './cluster.ts';
import { member, view } from '../roles/cases.ts';
import { seen } from '../node/scenes.ts';

const prod = await testCluster();
const first = await createSecrets();
const certificates = await Promise.all(['db1', 'db2', 'db3'].map((host) => prod.node(host)));
const [app1, app2] = await Promise.all(['app1', 'app2'].map((host) => prod.node(host, 'app')));
if (app1 === undefined || app2 === undefined) throw new Error('two app nodes');

/** Three db nodes that hear each other at once; the network is a call. */
class World {
  readonly nodes: readonly { certificate: NodeCertificate; store: SecretsStore; roster: Roster }[];
  readonly dead = new Set<PeerId>();
  readonly directory: string;
  synced = true;

  constructor(test: Test) {
    const directory = test.testdir({ db1: {}, db2: {}, db3: {}, app1: {}, app2: {} });
    this.directory = directory;
    this.nodes = certificates.map((certificate) => {
      const roster = new Roster(prod.trust, '/nowhere');
      for (const each of certificates) roster.add(each);
      return { certificate, store: new SecretsStore(`${directory}/${certificate.host}`, 'db'), roster };
    });
  }

  async begin(): Promise<this> {
    for (const { store } of this.nodes) await store.put(first);
    return this;
  }

  held(at: number): DbSecrets {
    const secrets = this.nodes[at]?.store.get();
    if (secrets?.kind !== 'db') throw new Error('no secrets');
    return secrets;
  }

  /** One authority's word; who hears it is the caller's. */
  async remove(at: number, reason: string, hearers: readonly number[]): Promise<void> {
    const [one] = this.nodes;
    const gone = this.nodes[at]?.certificate;
    if (one === undefined || gone === undefined) throw new Error('no such node');
    await this.removeOf(gone, reason, hearers);
  }

  async removeOf(gone: NodeCertificate, reason: string, hearers: readonly number[]): Promise<void> {
    const authority = new Roster(prod.trust, '/nowhere');
    for (const each of [...certificates, gone]) authority.add(each);
    const { bytes } = await putOut(prod.authority, authority, gone, reason, NOW_MS);
    for (const hearer of hearers) this.nodes[hearer]?.roster.addRevocation(bytes);
    this.dead.add(gone.peerId);
  }

  look(at: number): Promise<string | undefined> {
    const own = this.nodes[at];
    if (own === undefined) throw new Error('no such node');
    const members = this.nodes
      .filter(({ certificate }) => own.roster.admits(certificate.peerId))
      .map(({ certificate, store }, rank) => {
        const secrets = store.get();
        const tags: Record<string, string> = secrets?.kind === 'db' ? { [SECRETS_TAG]: rankOf(secrets) } : {};
        const state = this.dead.has(certificate.peerId) ? 'dead' : 'alive';
        const { name, peerId } = certificate;
        return member(name, { self: certificate === own.certificate, state, rank, record: { peerId, tags } });
      });
    const { certificate, roster, store } = own;
    return keepDbSecrets(this.exchange(certificate, roster, store), view(members, { synced: this.synced }));
  }

  /** As an app node that hears all db nodes. */
  lookAsApp(certificate: NodeCertificate, store: SecretsStore): Promise<string | undefined> {
    const [one] = this.nodes;
    if (one === undefined) throw new Error('no node');
    const databases = this.nodes.map((each, rank) => {
      const secrets = each.store.get();
      const tags: Record<string, string> = secrets?.kind === 'db' ? { [SECRETS_TAG]: rankOf(secrets) } : {};
      return member(each.certificate.name, { rank, record: { peerId: each.certificate.peerId, tags } });
    });
    return keepAppSecrets(this.exchange(certificate, one.roster, store), view(databases));
  }

  exchange(certificate: NodeCertificate, roster: Roster, store: SecretsStore): ExchangeDependencies {
    return {
      identity: { peerId: certificate.peerId, roster, secrets: store },
      transport: {
        peers: () => this.nodes.map((each) => each.certificate.peerId),
        request: async (peer: PeerId) => {
          const asked = this.nodes.find((each) => each.certificate.peerId === peer);
          const answer = answerSecretsRequest(certificate, asked?.store.get());
          return answer === undefined ? new Uint8Array(0) : encodeSecrets(answer);
        },
      },
      log: { debug: () => undefined },
      wallMs: () => NOW_MS,
    } as unknown as ExchangeDependencies;
  }
}

t.test('secrets are rotated neither without a removal nor after a leave', async (t) => {
  const world = await new World(t).begin();
  t.equal(await world.look(0), undefined);
  await world.remove(2, LEFT, [0, 1]);
  t.equal(await world.look(0), undefined);
  t.equal(world.held(0).generation, 1);
});

t.test('after a removal the first living db node rolls them, once, and the others take them', async (t) => {
  const world = await new World(t).begin();
  await world.remove(2, 'sold', [0, 1]);
  t.equal(await world.look(1), undefined, 'the second waits for the first');
  t.match(await world.look(0), /^replaced the Erlang cookie/);
  t.match(await world.look(1), /^received the new Erlang cookie/);
  t.strictSame(world.held(1), world.held(0));
  t.equal(world.held(0).generation, 2);
  t.not(world.held(0).cookie, first.cookie);
  t.not(world.held(0).authSecret, first.authSecret);
  for (const at of [0, 1, 0]) t.equal(await world.look(at), undefined, 'and that is all');
  t.strictSame(world.held(2), first, 'the removed one has the old ones');
});

t.test('a removed node is refused, even by a node that does not know of the removal', async (t) => {
  const world = await new World(t).begin();
  await world.remove(2, 'sold', [0]);
  await world.look(0);
  world.dead.clear();
  t.match(await world.look(1), /^received/, 'the second knows the secrets and not yet why');
  t.equal(await world.look(2), undefined, 'the removed one asks both');
  t.strictSame(world.held(2), first);
});

t.test('when the first died the next one rolls, and a node that was away takes theirs', async (t) => {
  const world = await new World(t).begin();
  await world.remove(2, 'sold', [1]);
  const [away] = certificates;
  world.dead.add(away?.peerId ?? '');
  t.match(await world.look(1), /^replaced/);
  world.dead.delete(away?.peerId ?? '');
  t.match(await world.look(0), /^received/);
  t.strictSame(world.held(0), world.held(1));
});

t.test('a node that has not synced since its start rotates no secrets', async (t) => {
  const world = await new World(t).begin();
  await world.remove(2, 'sold', [0, 1]);
  world.synced = false;
  t.equal(await world.look(0), undefined);
});

t.test('after the removal of an app node the ring has a key that it does not know', async (t) => {
  const world = await new World(t).begin();
  const directory = world.directory;
  const [stays, goes] = [app1, app2].map(({ host }) => new SecretsStore(`${directory}/${host}`, 'app'));
  if (stays === undefined || goes === undefined) throw new Error('two stores');
  for (const [certificate, store] of [
    [app1, stays],
    [app2, goes],
  ] as const) {
    t.match(await world.lookAsApp(certificate, await withoutKeys(store)), /^received the new keys/);
    t.strictSame(store.get(), answerSecretsRequest(certificate, world.held(0)));
    t.equal(await world.lookAsApp(certificate, store), undefined, 'and that is all');
  }
  await world.removeOf(app2, 'stolen', [0, 1]);
  t.equal(await world.look(1), undefined, 'the second waits for the first');
  t.match(await world.look(0), /^made a new key of the app tier/);
  t.equal(await world.look(0), undefined, 'once');
  t.equal(world.held(0).cookie, first.cookie, 'CouchDB is not restarted for it');
  t.match(await world.look(1), /^received/);
  t.match(await world.lookAsApp(app1, stays), /^received the new keys/);
  t.match(stays.get(), { appKeys: world.held(0).appKeys });
  t.equal(await world.lookAsApp(app2, goes), undefined, 'the removed one asks in vain');
  t.match(goes.get(), { appKeys: first.appKeys });
});

/** As of a release that knew no ring. */
async function withoutKeys(store: SecretsStore): Promise<SecretsStore> {
  const { app } = first;
  await store.put({ version: 1, kind: 'app', generation: 1, rank: '', app, appKeys: [] });
  return store;
}

t.test(
  'a cluster from before the ring gets one from the first db node of all, and from no other',
  async (t) => {
    const world = new World(t);
    for (const { store } of world.nodes) await store.put({ ...first, appKeys: [] });
    const [away] = certificates;
    world.dead.add(away?.peerId ?? '');
    t.equal(await world.look(1), undefined, 'the first may be making it on the other side of a cut');
    world.dead.clear();
    t.equal(await world.look(0), 'made the first key of the app tier');
    t.match(await world.look(1), /^received/);
    t.equal(world.held(1).appKeys.length, 1);
  },
);

t.test('the app tier gets its part in a file that its group reads, and nothing of a db node’s', async (t) => {
  const directory = t.testdir({ accounts: {} });
  const file = `${directory}/accounts/secrets.json`;
  const warned: unknown[] = [];
  const log = { warn: (_facts: unknown, text: string) => warned.push(text) } as unknown as Log;
  const handOver = new SecretsHandOver(`${directory}/accounts`, log);
  await handOver.write(first);
  await handOver.write(undefined);
  await t.rejects(stat(file), 'neither a db node nor one without secrets writes it');
  const theirs = answerSecretsRequest(app1, first);
  await handOver.write(theirs);
  const written = await readFile(file, 'utf8');
  t.strictSame(JSON.parse(written), { keys: first.appKeys, database: first.app });
  t.equal((await stat(file)).mode & 0o777, 0o640);
  const { ino } = await stat(file);
  await handOver.write(theirs);
  t.equal((await stat(file)).ino, ino, 'equal bytes are not written again');
  await handOver.write(answerSecretsRequest(app1, rollAppKeys(first, [])));
  t.match(JSON.parse(await readFile(file, 'utf8')), { keys: { length: 2 } });
  await new SecretsHandOver(`${directory}/nowhere`, log).write(theirs);
  t.same(warned, [], 'no such directory: nobody reads it');
  await mkdir(`${directory}/accounts2/secrets.json`, { recursive: true });
  const blocked = new SecretsHandOver(`${directory}/accounts2`, log);
  await blocked.write(theirs);
  await blocked.write(theirs);
  t.same(warned, ['cannot write the secrets of the app tier'], 'once');
});

t.test('a keeper checks once at a time, and reports what it took', async (t) => {
  const [own] = certificates;
  const store = new SecretsStore(`${t.testdir({ db1: {} })}/db1`, 'db');
  const asked = Promise.withResolvers<Uint8Array>();
  const did: string[] = [];
  const exchange = {
    identity: { ...own, roster: new World(t).nodes[0]?.roster, secrets: store },
    transport: {
      peers: () => [certificates[1]?.peerId],
      request: () => {
        did.push('asked');
        return asked.promise;
      },
    },
    log: { debug: () => undefined },
  } as unknown as ExchangeDependencies;
  const keeper = new SecretsKeeper({
    exchange,
    log: exchange.log,
    audit: { append: (entry) => (did.push(entry.summary), { ...entry, id: 1, at: '' }) },
    node: { last: seen(view([])), turn: (reason) => did.push(reason) },
    handOver: undefined,
  });
  const looks = [keeper.look(), keeper.look()];
  asked.resolve(encodeSecrets(first));
  await Promise.all(looks);
  t.strictSame(did, ['asked', 'this role’s secrets arrived']);
  await keeper.look();
  t.equal(did.length, 2, 'nothing to do, nothing to tell');
  t.strictSame(store.get(), first);
});
