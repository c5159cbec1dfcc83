import { mkdir } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { EMPTY_BUNDLE } from '../../../src/plugins/certificates/desired.ts';
import { mergedBundles } from '../../../src/plugins/certificates/merge.ts';
import type { ExchangeDependencies } from '../../../src/daemon/identity/exchange.ts';
import { Roster } from '../../../src/daemon/identity/roster/roster.ts';
import { encodeSite, SiteStore } from '../../../src/daemon/identity/site.ts';
import { mayHave, SiteKeeper } from '../../../src/daemon/identity/site-keeper.ts';
import type { PeerId } from '../../../src/daemon/membership/types.ts';
import { until } from '../../support/until.ts';
import { testCluster } from './cluster.ts';

const prod = await testCluster();
const certificates = await Promise.all(['app1', 'app2', 'app3'].map((host) => prod.node(host, 'app')));

interface AppNode {
  readonly peerId: PeerId;
  readonly store: SiteStore;
  readonly keeper: SiteKeeper;
  /** Whom it asked. */
  readonly asked: PeerId[];
  /** How often all were found equal. */
  shared: number;
}

/** App nodes that know each other's digest at once; the network is a call. */
async function world(t: Test) {
  const silent = new Set<PeerId>();
  /** Called while an answer is under way. */
  const meanwhile: (() => Promise<void>)[] = [];
  const directory = t.testdir();
  const roster = new Roster(prod.trust, '/nowhere');
  for (const each of certificates) roster.add(each);
  const nodes: AppNode[] = [];
  let nowMs = 0;
  for (const { peerId, host } of certificates) {
    await mkdir(`${directory}/${host}`);
    const store = new SiteStore(`${directory}/${host}`, EMPTY_BUNDLE);
    const asked: PeerId[] = [];
    const others = () => nodes.filter((each) => each.peerId !== peerId);
    const keeper = new SiteKeeper({
      store,
      merged: mergedBundles,
      peers: () =>
        others().map((each) => ({ peerId: each.peerId, name: each.peerId, word: each.store.word })),
      changed: () => undefined,
      shared: () => void (node.shared += 1),
      nowMs: () => nowMs,
      identity: { peerId, roster },
      transport: {
        request: async (peer: PeerId): Promise<Uint8Array> => {
          asked.push(peer);
          const of = nodes.find((each) => each.peerId === peer)?.store.get() ?? EMPTY_BUNDLE;
          if (silent.has(peer)) return new Promise(() => undefined);
          await meanwhile.pop()?.();
          return mayHave('app', peerId, of) ? encodeSite(of) : new Uint8Array(0);
        },
      },
      log: { debug: () => undefined, warn: () => undefined },
      wallMs: () => 0,
    } as unknown as ExchangeDependencies & ConstructorParameters<typeof SiteKeeper>[0]);
    const node: AppNode = { peerId, store, keeper, asked, shared: 0 };
    nodes.push(node);
  }
  return {
    nodes: nodes as [AppNode, AppNode, AppNode],
    silent,
    meanwhile,
    lookAll: () => Promise.all(nodes.map(({ keeper }) => keeper.look())),
    pass: (ms: number) => void (nowMs += ms),
  };
}

const next = (nowMs: number) => (now: typeof EMPTY_BUNDLE) => ({
  ...now,
  generation: now.generation + 1,
  notBeforeMs: nowMs,
});

t.test('a changed bundle reaches all app nodes, and each recognises once that all have it', async (t) => {
  const { nodes, lookAll } = await world(t);
  const [first, second, third] = nodes;
  await first.keeper.change(next(1));
  t.equal(first.keeper.differing().length, 2);
  await lookAll();
  for (const { store } of nodes) t.strictSame(store.get(), first.store.get());
  await lookAll();
  await lookAll();
  t.strictSame(
    nodes.map(({ shared }) => shared),
    [1, 1, 1],
  );
  t.strictSame([second.asked, third.asked], [[first.peerId], [first.peerId]]);
});

t.test('a node that does not answer delays the bundle of no other', async (t) => {
  const { nodes, silent } = await world(t);
  const [first, second, third] = nodes;
  await first.keeper.change(next(1));
  await second.keeper.change(next(2));
  silent.add(first.peerId);
  void third.keeper.look();
  await until(() => third.store.word === second.store.word, { what: 'the bundle of the second' });
  t.strictSame(third.asked, [first.peerId, second.peerId]);
});

t.test('what changes during a check is checked once more, without waiting for a second', async (t) => {
  const { nodes, meanwhile, pass } = await world(t);
  const [first, , third] = nodes;
  await first.keeper.change(next(1));
  meanwhile.push(async () => {
    await first.keeper.change(next(2));
    await third.keeper.look();
  });
  await third.keeper.look();
  t.strictSame(third.store.get(), first.store.get());

  await third.keeper.change(next(3));
  const asked = async (): Promise<number> => {
    const before = third.asked.length;
    await third.keeper.look();
    return third.asked.length - before;
  };
  t.equal(await asked(), 1, 'one whose bundle differs is asked');
  t.equal(await asked(), 0, 'and if it brings nothing new, not again at once');
  pass(5000);
  t.equal(await asked(), 1, 'but later');
});
