/** People who register and go all the time: user documents, each with a database that CouchDB makes and deletes. */
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { databaseOf, userDocumentId } from '../../src/app/accounts/names.ts';
import type { Cluster } from './couchdb-cluster.ts';
import { type Asked, copiesOf, mapOf } from './couchdb-checker.ts';

/** Often enough that each look of a daemon finds another database, seldom enough for a machine with little time. */
const EVERY_MS = 500;
/** Of three people one goes again; the others stay. */
const GOES = 3;
/** CouchDB makes a database some 0.1 s after the user, and up to a minute later when nodes came or went. */
const MADE_WITHIN_MS = 90_000;

export class Users {
  readonly #cluster: Cluster;
  readonly #ended = new AbortController();
  readonly #loop: Promise<void>;
  readonly #stay: string[] = [];
  readonly #gone: string[] = [];

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    this.#loop = this.#run();
  }

  get stay(): readonly string[] {
    return this.#stay;
  }

  async stop(): Promise<void> {
    this.#ended.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    for (let number = 0; !this.#ended.signal.aborted; number += 1) {
      await this.#one(number).catch(() => undefined);
      await delay(EVERY_MS, undefined, { signal: this.#ended.signal }).catch(() => undefined);
    }
  }

  /** Asks first whether databases can be made and deleted, as the app tier does. */
  async #one(number: number): Promise<void> {
    const nodes = this.#cluster.nodes.filter((each) => this.#cluster.rotation().includes(each));
    const node = nodes[number % Math.max(1, nodes.length)];
    if (node === undefined || nodes.some(({ plugin }) => plugin.known().disagreement !== undefined)) return;
    const name = `person${number}`;
    const path = `_users/${userDocumentId(name)}`;
    // A hash of one round, as the app tier writes it: a plain password would cost CouchDB 0.2 s.
    const hash = { password_scheme: 'pbkdf2', pbkdf2_prf: 'sha256', iterations: 1 };
    const secret = { salt: 'a'.repeat(32), derived_key: 'b'.repeat(64) };
    const made = await node.ask('PUT', path, { type: 'user', name, roles: ['account'], ...hash, ...secret });
    if (made.status !== 201) return;
    if (number % GOES !== 0) {
      this.#stay.push(name);
      return;
    }
    await this.#untilDatabase(node, name, 200);
    const { rev } = made.body as { rev: string };
    const { status } = await node.ask('DELETE', `${path}?rev=${rev}`);
    if (status === 200) this.#gone.push(name);
  }

  async #untilDatabase(node: Asked, name: string, wanted: number): Promise<void> {
    const endMs = performance.now() + MADE_WITHIN_MS;
    while (performance.now() < endMs && !this.#ended.signal.aborted) {
      if ((await node.ask('GET', databaseOf(name))).status === wanted) return;
      await delay(100);
    }
  }

  /** What is wrong through this node, asked again until it is right or the time is over. */
  async wrongOn(node: Asked, copies: number): Promise<string[]> {
    const endMs = performance.now() + MADE_WITHIN_MS;
    for (;;) {
      const wrong: string[] = [];
      for (const name of this.#stay) wrong.push(...(await wrongOf(node, name, copies)));
      for (const name of this.#gone) {
        const { status } = await node.ask('GET', databaseOf(name));
        if (status !== 404) wrong.push(`${name} is gone, and its database answers ${status}`);
      }
      if (wrong.length === 0 || performance.now() > endMs) return wrong;
      await delay(500);
    }
  }
}

async function wrongOf(node: Asked, name: string, copies: number): Promise<string[]> {
  const database = databaseOf(name);
  const user = await node.ask('GET', `_users/${userDocumentId(name)}`);
  if (user.status !== 200) return [`${name} is lost: ${user.status}`];
  if ((await node.ask('GET', database)).status !== 200) return [`${name} has no database`];
  const { by_range: ranges } = await mapOf(node, database);
  const few = Object.values(ranges).filter((holders) => holders.length !== copies);
  const party = { names: [name], roles: ['_admin'] };
  const secured = [...(await copiesOf(node, database, '/_security')).values()].flat();
  const open = secured.filter((each) => !isDeepStrictEqual(each, { members: party, admins: party }));
  return [
    ...few.map((holders) => `${name}: ${holders.length} copies instead of ${copies}`),
    ...open.map((each) => `${name}: a copy has _security ${JSON.stringify(each)}`),
  ];
}
