/**
 * Coordinators that take a node in or out of a CouchDB cluster by hand, without the plugin: five of them do one thing
 * wrong, each a thing that CouchDB answers with 200 or 201. They are what shows that the checker sees a loss when there
 * is one.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { DistCertificates } from '../contract/couchdb/certificates.ts';
import { Fronts } from '../contract/couchdb/fronts.ts';
import { until } from '../support/until.ts';
import { bounded } from '../../src/plugins/couchdb/copies.ts';
import {
  copyPath,
  rangesOf,
  revOf,
  type ShardMap,
  withHolder,
  withoutHolder,
} from '../../src/plugins/couchdb/shards.ts';
import {
  type Answer,
  type Asked,
  Checker,
  copiesOf,
  mapOf,
  securityDisagreements,
  underReplicated,
} from './couchdb-checker.ts';
import { isOver } from '../support/patience.ts';

export const wrongWays = [
  'no maintenance',
  'swap in one write',
  '_security skipped',
  'pre-existing _users',
  'last copy dropped',
] as const;
export type WrongWay = (typeof wrongWays)[number];

/** What the checker counted. All zero: nothing was seen to be wrong. */
export interface Findings {
  readonly acknowledged: number;
  readonly lost: number;
  readonly wrongReads: number;
  readonly underReplicated: number;
  readonly security: number;
  readonly conflicts: number;
}

/** What of the findings gives each of them away. */
const givenAwayBy: Record<WrongWay, (findings: Findings) => boolean> = {
  'no maintenance': ({ wrongReads }) => wrongReads > 0,
  'swap in one write': ({ lost, wrongReads }) => lost + wrongReads > 0,
  '_security skipped': ({ security }) => security > 0,
  'pre-existing _users': ({ lost, conflicts }) => lost > 0 && conflicts > 0,
  'last copy dropped': ({ lost }) => lost > 0,
};

export function isCaught(way: WrongWay, findings: Findings | undefined): boolean {
  return findings !== undefined && givenAwayBy[way](findings);
}

export function isClean({
  lost,
  wrongReads,
  underReplicated: under,
  security,
  conflicts,
}: Findings): boolean {
  return lost + wrongReads + under + security + conflicts === 0;
}

const wantedSecurity = {
  admins: { names: [], roles: ['_admin'] },
  members: { names: ['alice'], roles: ['_admin'] },
};
/** So many that a copy takes a while to fill: the window in which a wrong order is seen. */
const documents = 6000;
/** CouchDB's own sync of what was written begins within 5 s. */
const settleMs = 8000;
/** So many reads are made after the coordinator is done. */
const readsAfter = 40;
const lanes = 3;
/** Databases that are made at once. */
export const WIDTH = 8;
const password = 'adminpw';

class BareNode implements Asked {
  readonly number: number;
  readonly address: string;
  readonly name: string;
  readonly #fronts: Fronts;

  constructor(fronts: Fronts, number: number) {
    this.#fronts = fronts;
    this.number = number;
    this.address = `${fronts.base}${number}`;
    this.name = `couchdb@${this.address}`;
  }

  async ask(method: string, path: string, body?: unknown, timeoutMs = 15_000): Promise<Answer> {
    return await this.askAs('admin', password, method, path, body, timeoutMs);
  }

  async askAs(
    user: string,
    secret: string,
    method: string,
    path: string,
    body?: unknown,
    timeoutMs = 15_000,
  ): Promise<Answer> {
    const response = await fetch(this.#fronts.url(this.number, `/${path}`), {
      method,
      headers: {
        authorization: `Basic ${Buffer.from(`${user}:${secret}`).toString('base64')}`,
        accept: 'application/json',
        'content-type': 'application/json',
      },
      signal: AbortSignal.timeout(timeoutMs),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, body: await response.json() };
  }

  /** @throws Error when the answer is not one of those that promise success */
  async must(method: string, path: string, body?: unknown): Promise<unknown> {
    const answer = await this.ask(method, path, body, 60_000);
    if (![200, 201, 202].includes(answer.status))
      throw new Error(
        `${method} ${path} on ${this.address}: ${answer.status} ${JSON.stringify(answer.body)}`,
      );
    return answer.body;
  }

  /** In its first moments a release answers 500 here. */
  async takesUser(name: string): Promise<void> {
    const path = `_users/org.couchdb.user:${name}`;
    const taken = async (): Promise<true> => {
      const { status, body } = await this.ask('PUT', path, user(name));
      if (status >= 300) throw new Error(`${status} ${JSON.stringify(body)}`);
      return true;
    };
    await until(taken, { what: `${path} on ${this.address}`, everyMs: 200 });
  }
}

/** A cluster of one with a database that is in use, and a node beside it. */
class Bench {
  readonly fronts: Fronts;
  readonly first: BareNode;
  readonly second: BareNode;
  readonly inRotation = new Set<BareNode>();
  readonly ids: string[] = [];

  constructor(fronts: Fronts) {
    this.fronts = fronts;
    this.first = new BareNode(fronts, 1);
    this.second = new BareNode(fronts, 2);
  }

  rotation(): readonly Asked[] {
    return [...this.inRotation];
  }

  async begin(count = documents): Promise<void> {
    const { first, fronts } = this;
    await fronts.start(1);
    for (const database of ['_users', '_replicator', 'app']) await first.must('PUT', database);
    await first.must('PUT', 'app/_security', wantedSecurity);
    await first.takesUser('alice');
    for (let from = 0; from < count; from += 2000) {
      const docs = Array.from({ length: 2000 }, (_, i) => ({
        _id: `before-${from + i}`,
        pad: 'x'.repeat(200),
      }));
      await first.must('POST', 'app/_bulk_docs', { docs });
      this.ids.push(...docs.map(({ _id: id }) => id));
    }
    this.inRotation.add(first);
  }

  async maintenance(node: BareNode, on: boolean): Promise<void> {
    await node.must('PUT', '_node/_local/_config/couchdb/maintenance_mode', String(on));
  }

  async join(): Promise<void> {
    const { first, second } = this;
    await first.must('PUT', `_node/_local/_nodes/${second.name}`, { decom: true });
    const both = [first.name, second.name];
    for (const node of [first, second]) {
      await until(
        async () => {
          const { body } = await node.ask('GET', '_membership');
          const { all_nodes: connected, cluster_nodes: members } = body as Record<string, string[]>;
          return String(connected) === String(both) && String(members) === String(both);
        },
        { what: `${node.address} to see both nodes`, deadlineMs: 60_000, everyMs: 50 },
      );
    }
    await until(async () => (await mapOf(second, 'app')).by_range !== undefined, {
      what: 'the shard map to reach the joiner',
      deadlineMs: 60_000,
      everyMs: 50,
    });
  }

  async edit(database: string, change: (map: ShardMap) => ShardMap): Promise<void> {
    const { _conflicts: _none, ...map } = await mapOf(this.first, database);
    await this.first.must('PUT', `_node/_local/_dbs/${database}`, change(map));
  }

  async addCopies(database: string): Promise<void> {
    await this.edit(database, (map) => withHolder(map, this.second.name, rangesOf(map)));
  }

  /**
   * Pushes until the joiner has all that the first had a moment before. In maintenance a copy gets writes by CouchDB's
   * own sync only, which begins 5 s after them: so what is being written is pushed to the last.
   */
  async filled(database: string): Promise<void> {
    await until(
      async () => {
        const before = await this.#counts(database, this.first);
        await this.first.must('POST', `${database}/_sync_shards`);
        await delay(100);
        const now = await this.#counts(database, this.second);
        return before.every((count, i) => (now[i] as number) >= count);
      },
      { what: `the copies of ${database} to be filled`, deadlineMs: 90_000, everyMs: 200 },
    );
  }

  async #counts(database: string, node: BareNode): Promise<number[]> {
    const map = await mapOf(this.first, database);
    return await Promise.all(
      rangesOf(map).map(async (range) => {
        const { body } = await this.first.ask('GET', `_node/${node.name}/${copyPath(map, range)}`);
        return (body as { doc_count: number }).doc_count;
      }),
    );
  }
}

function user(name: string): object {
  return { name, password: 'secret', roles: [], type: 'user' };
}

/** Joins in the verified order, with one step left out or changed. */
async function grow(bench: Bench, wrong: 'no maintenance' | '_security skipped' | undefined): Promise<void> {
  const { first, second } = bench;
  if (wrong !== 'no maintenance') await bench.maintenance(second, true);
  await bench.join();
  if (wrong === 'no maintenance') bench.inRotation.add(second);
  await bench.addCopies('app');
  if (wrong !== '_security skipped') {
    await until(async () => [...(await copiesOf(first, 'app', '/_security')).values()].flat().length === 4, {
      what: 'the new copies',
      deadlineMs: 30_000,
      everyMs: 50,
    });
    await first.must('PUT', 'app/_security', wantedSecurity);
  }
  await bench.filled('app');
  if (wrong !== 'no maintenance') await bench.maintenance(second, false);
  bench.inRotation.add(second);
}

/** Moves the copies by one write instead of adding, filling, and removing. */
async function swap(bench: Bench): Promise<void> {
  const { first, second } = bench;
  await bench.maintenance(second, true);
  await bench.join();
  await bench.edit('app', (map) => {
    const ranges = rangesOf(map);
    return {
      ...map,
      by_node: { [second.name]: ranges },
      by_range: Object.fromEntries(ranges.map((range) => [range, [second.name]])),
      changelog: [
        ...map.changelog,
        ...ranges.flatMap((range) => [
          ['add', range, second.name],
          ['remove', range, first.name],
        ]),
      ],
    };
  });
  await bench.maintenance(second, false);
  await first.must('PUT', 'app/_security', wantedSecurity);
  await first.must('POST', 'app/_sync_shards');
  bench.inRotation.add(second);
}

/** Takes a node in that has a `_users` of its own. */
async function joinWithUsers(bench: Bench): Promise<void> {
  const { first, second } = bench;
  await second.must('PUT', '_users');
  await second.takesUser('bob');
  await bench.join();
  bench.inRotation.add(second);
  await until(async () => revOf(await mapOf(first, '_users')) === revOf(await mapOf(second, '_users')), {
    what: 'both to hold the same map',
    everyMs: 50,
  });
}

/**
 * All copies are on the second, moved there in the verified order; it is taken out without a look at what only it has.
 */
async function leaveWithLastCopy(bench: Bench): Promise<void> {
  const { first, second, fronts } = bench;
  await grow(bench, undefined);
  await bench.edit('app', (map) => withoutHolder(map, first.name));
  bench.inRotation.delete(second);
  const path = `_node/_local/_nodes/${second.name}`;
  const { _rev: rev } = (await second.must('GET', path)) as { _rev: string };
  await second.must('DELETE', `${path}?rev=${rev}`);
  await fronts.stop(second.number);
}

async function act(bench: Bench, way: WrongWay | 'the verified order'): Promise<void> {
  switch (way) {
    case 'the verified order':
      return await grow(bench, undefined);
    case 'no maintenance':
    case '_security skipped':
      return await grow(bench, way);
    case 'swap in one write':
      return await swap(bench);
    case 'pre-existing _users':
      return await joinWithUsers(bench);
    case 'last copy dropped':
      return await leaveWithLastCopy(bench);
  }
}

/** Lets a coordinator act on a cluster of its own while clients write and read, and counts what is wrong then. */
async function findingsOf(
  way: WrongWay | 'the verified order',
  certificates: DistCertificates,
): Promise<Findings> {
  const fronts = await Fronts.create(certificates);
  const bench = new Bench(fronts);
  let checker: Checker | undefined;
  try {
    await bench.begin();
    await fronts.start(bench.second.number);
    checker = new Checker(bench, 'app', bench.ids);
    await act(bench, way);
    const readBefore = checker.reads;
    const seen = checker;
    // Where nothing answers any more there are no reads to wait for.
    if (way !== 'last copy dropped')
      await until(() => seen.reads >= readBefore + readsAfter, { what: 'reads', deadlineMs: 60_000 });
    const verdict = await checker.stop();
    return {
      acknowledged: verdict.acknowledged,
      ...(await countUp(bench, way, checker)),
      wrongReads: verdict.wrongReads.length,
    };
  } finally {
    await checker?.stop();
    await fronts.close();
  }
}

async function countUp(
  bench: Bench,
  way: WrongWay | 'the verified order',
  checker: Checker,
): Promise<Omit<Findings, 'acknowledged' | 'wrongReads'>> {
  const { first } = bench;
  const lost = await checker.lostOn(first, settleMs);
  const users = way === 'pre-existing _users' ? ['alice', 'bob'] : ['alice'];
  for (const name of users) {
    const { status } = await first.ask('GET', `_users/org.couchdb.user:${name}`);
    if (status !== 200) lost.push(`org.couchdb.user:${name}`);
  }
  const grown = way === 'the verified order' || way === 'no maintenance' || way === '_security skipped';
  const conflicts = (await Promise.all(['_users', 'app'].map((database) => mapOf(first, database)))).filter(
    ({ _conflicts: losers }) => losers !== undefined,
  ).length;
  // Without any copy left there is nothing to compare: the loss says it.
  if (way === 'last copy dropped') return { lost: lost.length, conflicts, underReplicated: 0, security: 0 };
  return {
    lost: lost.length,
    conflicts,
    underReplicated: await fewest(() => underReplicated(first, 'app', grown ? 2 : 1)),
    security: await securityDisagreements(first, 'app', wantedSecurity),
  };
}

/** What is left of it when CouchDB's own sync has had its time. */
export async function fewest(count: () => Promise<number>): Promise<number> {
  const sinceMs = performance.now();
  for (;;) {
    const found = await count();
    if (found === 0 || isOver(sinceMs, settleMs)) return found;
    await delay(200);
  }
}

/** All of them, some at a time: each mostly waits. */
export async function findingsOfAll<W extends WrongWay | 'the verified order'>(
  ways: readonly W[],
): Promise<Map<W, Findings>> {
  const certificates = new DistCertificates();
  const waiting = [...ways];
  const found = new Map<W, Findings>();
  const lane = async (): Promise<void> => {
    for (let way = waiting.shift(); way !== undefined; way = waiting.shift())
      found.set(way, await findingsOf(way, certificates));
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return found;
}

/** Starting a second CouchDB and taking it in by hand, in the verified order, with nobody writing. In seconds. */
export async function secondsToGrow(count: number): Promise<number> {
  const fronts = await Fronts.create(new DistCertificates());
  const bench = new Bench(fronts);
  try {
    await bench.begin(count);
    const beganMs = performance.now();
    await fronts.start(bench.second.number);
    await grow(bench, undefined);
    return (performance.now() - beganMs) / 1000;
  } finally {
    await fronts.close();
  }
}

/**
 * The same with `count` small databases of people, one after the other, each step at once when the one before is seen
 * to be done. In seconds.
 */
export async function secondsToGrowMany(count: number): Promise<number> {
  const fronts = await Fronts.create(new DistCertificates());
  const bench = new Bench(fronts);
  const { first, second } = bench;
  const names = Array.from({ length: count }, (_, index) => `person-${index}`);
  try {
    await bench.begin(0);
    await bounded(names, WIDTH, (name) => makeSmall(first, name, wantedSecurity));
    const beganMs = performance.now();
    await fronts.start(second.number);
    await bench.maintenance(second, true);
    await bench.join();
    for (const name of ['app', ...names]) {
      await bench.addCopies(name);
      await until(async () => [...(await copiesOf(first, name, '/_security')).values()].flat().length === 4, {
        what: `the new copies of ${name}`,
        deadlineMs: 60_000,
        everyMs: 20,
      });
      await first.must('PUT', `${name}/_security`, wantedSecurity);
      await bench.filled(name);
    }
    await bench.maintenance(second, false);
    return (performance.now() - beganMs) / 1000;
  } finally {
    await fronts.close();
  }
}

/** A database with its own `_security` and three documents. */
export async function makeSmall(node: Asked, name: string, security: object): Promise<void> {
  const docs = ['one', 'two', 'three'].map((_id) => ({ _id, pad: 'x'.repeat(200) }));
  for (const [method, path, body] of [
    ['PUT', name, undefined],
    ['PUT', `${name}/_security`, security],
    ['POST', `${name}/_bulk_docs`, { docs }],
  ] as const) {
    const { status } = await node.ask(method, path, body, 60_000);
    if (status >= 300) throw new Error(`${method} ${path} answered ${status}`);
  }
}
