import t, { type Test } from 'tap';
import type { ExchangeDependencies } from '../../../src/daemon/node/exchange.ts';
import { keepDbSecrets, SecretsKeeper, SECRETS_TAG } from '../../../src/daemon/node/secrets.ts';
import type { NodeCertificate } from '../../../src/daemon/identity/keys/chain.ts';
import { LEFT, putOut } from '../../../src/daemon/identity/roster/removal.ts';
import { Roster } from '../../../src/daemon/identity/roster/roster.ts';
import {
  answerSecretsRequest,
  createSecrets,
  type DbSecrets,
  encodeSecrets,
  rankOf,
  SecretsStore,
} from '../../../src/daemon/identity/secrets.ts';
import type { PeerId } from '../../../src/daemon/membership/types.ts';
import { NOW_MS, testCluster } from '../identity/cluster.ts';
import { member, view } from '../roles/cases.ts';

const prod = await testCluster();
const first = await createSecrets();
const certificates = await Promise.all(['db1', 'db2', 'db3'].map((host) => prod.node(host)));

/** Three db nodes that hear each other at once; the network is a call. */
class World {
  readonly nodes: readonly { certificate: NodeCertificate; store: SecretsStore; roster: Roster }[];
  readonly dead = new Set<PeerId>();
  synced = true;

  constructor(test: Test) {
    const directory = test.testdir({ db1: {}, db2: {}, db3: {} });
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
    const authority = new Roster(prod.trust, '/nowhere');
    for (const each of certificates) authority.add(each);
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
    const exchange = {
      identity: { peerId: own.certificate.peerId, roster: own.roster, secrets: own.store },
      transport: {
        peers: () => this.nodes.map(({ certificate }) => certificate.peerId),
        request: async (peer: PeerId) => {
          const asked = this.nodes.find(({ certificate }) => certificate.peerId === peer);
          const answer = answerSecretsRequest(own.certificate, asked?.store.get());
          return answer === undefined ? new Uint8Array(0) : encodeSecrets(answer);
        },
      },
      log: { debug: () => undefined },
      wallMs: () => NOW_MS,
    } as unknown as ExchangeDependencies;
    return keepDbSecrets(exchange, view(members, { synced: this.synced }));
  }
}

t.test('nothing is rolled while nobody was removed, nor for one that left by its own word', async (t) => {
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
  t.match(await world.look(0), /^made the Erlang cookie/);
  t.match(await world.look(1), /^took the Erlang cookie/);
  t.strictSame(world.held(1), world.held(0));
  t.equal(world.held(0).generation, 2);
  t.not(world.held(0).cookie, first.cookie);
  t.not(world.held(0).authSecret, first.authSecret);
  for (const at of [0, 1, 0]) t.equal(await world.look(at), undefined, 'and that is all');
  t.strictSame(world.held(2), first, 'the removed one has the old ones');
});

t.test('the removed node is refused, also by one that has not heard of the removal', async (t) => {
  const world = await new World(t).begin();
  await world.remove(2, 'sold', [0]);
  await world.look(0);
  world.dead.clear();
  t.match(await world.look(1), /^took/, 'the second knows the secrets and not yet why');
  t.equal(await world.look(2), undefined, 'the removed one asks both');
  t.strictSame(world.held(2), first);
});

t.test('when the first died the next one rolls, and a node that was away takes theirs', async (t) => {
  const world = await new World(t).begin();
  await world.remove(2, 'sold', [1]);
  const [away] = certificates;
  world.dead.add(away?.peerId ?? '');
  t.match(await world.look(1), /^made/);
  world.dead.delete(away?.peerId ?? '');
  t.match(await world.look(0), /^took/);
  t.strictSame(world.held(0), world.held(1));
});

t.test('a node that has not heard the others since its start rolls nothing', async (t) => {
  const world = await new World(t).begin();
  await world.remove(2, 'sold', [0, 1]);
  world.synced = false;
  t.equal(await world.look(0), undefined);
});

t.test('a keeper looks once at a time, and tells of what it took', async (t) => {
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
    exchange: () => exchange,
    view: () => view([]),
    log: exchange.log,
    audit: { append: (entry) => (did.push(entry.summary), { ...entry, id: 1, at: '' }) },
    lookAgain: (reason) => did.push(reason),
    share: () => did.push('shared'),
  });
  const looks = [keeper.look(), keeper.look()];
  asked.resolve(encodeSecrets(first));
  await Promise.all(looks);
  t.strictSame(did, ['asked', 'this role’s secrets arrived', 'shared']);
  await keeper.look();
  t.equal(did.length, 3, 'nothing to do, nothing to tell');
  t.strictSame(store.get(), first);
});
