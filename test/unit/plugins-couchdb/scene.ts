/** Observed states of small clusters, for tables of plans. */
import {
  clusterDigest,
  configFiles,
  cookieDigest,
  restartDigest,
} from '../../../src/plugins/couchdb/config.ts';
import {
  couchDbDesired,
  type CouchDbDesired,
  type DesiredFacts,
  type MemberFacts,
} from '../../../src/plugins/couchdb/desired.ts';
import type {
  Identity,
  MemberWord,
  NodeDocument,
  Observed,
  Proof,
  Server,
} from '../../../src/plugins/couchdb/observed.ts';
import { type Outlook, outlookOf } from '../../../src/plugins/couchdb/plan.ts';
import { idOf, type ShardMap } from '../../../src/plugins/couchdb/shards.ts';

export const directory = '/var/lib/bornemisza/couchdb';
export const hash = `-pbkdf2:sha256-${'ab'.repeat(32)},0123456789abcdef,600000`;

export function settings(): DesiredFacts['settings'] {
  return {
    cookie: 'throwawaycookie0123456789',
    secret: '00112233445566778899aabbccddeeff',
    adminName: 'admin',
    adminHash: hash,
    uuid: '0123456789abcdef0123456789abcdef',
  };
}

/** Node names by number: `node(1)` is `couchdb@10.0.0.1`. */
export function node(number: number): string {
  return `couchdb@10.0.0.${number}`;
}

export function member(number: number, facts: Partial<MemberFacts> = {}): MemberFacts {
  return {
    peerId: `peer-${number}`,
    name: `db${number}/db`,
    address: `10.0.0.${number}`,
    phase: 'in',
    alive: true,
    tag: 'serving',
    ...facts,
  };
}

export function desired(
  self: number,
  members: readonly MemberFacts[],
  more: Partial<DesiredFacts> = {},
): CouchDbDesired {
  return couchDbDesired({
    selfPeerId: `peer-${self}`,
    members,
    mayRestart: true,
    settings: settings(),
    ...more,
  });
}

export function freshTag(): string {
  const { settings: ready } = desired(1, [member(1)]);
  return `fresh:3.5.0:${clusterDigest(ready)}`;
}

export function map(database: string, holders: readonly number[], more: Partial<ShardMap> = {}): ShardMap {
  const ranges = ['00000000-7fffffff', '80000000-ffffffff'];
  const nodes = holders.map(node);
  return {
    _id: database,
    _rev: '1-a',
    shard_suffix: [...'.1700000000'].map((letter) => letter.charCodeAt(0)),
    changelog: [],
    by_node: Object.fromEntries(nodes.map((name) => [name, ranges])),
    by_range: Object.fromEntries(ranges.map((range) => [range, nodes])),
    ...more,
  };
}

export function systemMaps(holders: readonly number[]): ShardMap[] {
  return ['_users', '_replicator', '_global_changes'].map((name) => map(name, holders));
}

export interface SceneFacts {
  readonly self: number;
  readonly members: readonly MemberFacts[];
  /** Members of the CouchDB cluster; default: all listed ones that are in. */
  readonly cluster?: readonly number[];
  readonly connected?: readonly number[];
  readonly documents?: Readonly<Record<number, Partial<NodeDocument>>>;
  readonly maintenance?: readonly number[];
  readonly maps?: readonly ShardMap[];
  readonly marker?: Identity | undefined;
  readonly record?: Identity | undefined;
  readonly proof?: Proof;
  readonly server?: Partial<Server>;
  readonly observed?: Partial<Observed>;
  readonly words?: Readonly<Record<number, Partial<MemberWord> | undefined>>;
  readonly desired?: Partial<DesiredFacts>;
}

export function proof(more: Partial<Proof> = {}): Proof {
  return {
    total: 1,
    proved: 1,
    busyFirst: ['app'],
    busy: 0,
    lacking: [],
    alone: false,
    waitingMs: 0,
    ...more,
  };
}

/** The outlook of a node in a scene; everything that is not said is as in a settled cluster. */
export function look(facts: SceneFacts): Outlook {
  const wanted = desired(facts.self, facts.members, facts.desired);
  return outlookOf(wanted, observed(facts, wanted), directory);
}

export function observed(facts: SceneFacts, wanted: CouchDbDesired): Observed {
  const identity = { nodeName: node(facts.self), peerId: `peer-${facts.self}` };
  return {
    files: new Map(configFiles(wanted, directory, []).map((file) => [file.name, file.content])),
    marker: 'marker' in facts ? facts.marker : identity,
    record: 'record' in facts ? facts.record : identity,
    restartPending: false,
    restartAskedAgoMs: 0,
    restartDueForMs: 0,
    http: { kind: 'up', server: server(facts, wanted) },
    ...facts.observed,
  };
}

function server(facts: SceneFacts, wanted: CouchDbDesired): Server {
  const numbers = facts.cluster ?? facts.members.map((_, index) => index + 1);
  const connected = facts.connected ?? numbers;
  const maps = facts.maps ?? systemMaps(numbers);
  const documents = numbers.map(
    (number): NodeDocument => ({ _id: node(number), _rev: '1-a', ...facts.documents?.[number] }),
  );
  const word = (number: number): MemberWord | undefined =>
    facts.words !== undefined && number in facts.words && facts.words[number] === undefined
      ? undefined
      : {
          connected: connected.map(node),
          documents,
          maintenance: facts.maintenance?.includes(number) === true,
          databases: maps.length,
          ...facts.words?.[number],
        };
  return {
    nodeName: node(facts.self),
    version: '3.5.0',
    runningDigest: restartDigest(wanted, directory),
    runningCookie: cookieDigest(wanted.settings),
    seedlist: '',
    maintenance: facts.maintenance?.includes(facts.self) === true,
    allNodes: connected.map(node),
    clusterNodes: numbers.map(node),
    members: new Map(
      numbers.map((number) => [node(number), connected.includes(number) ? word(number) : undefined]),
    ),
    maps: new Map(maps.map((one) => [idOf(one), one])),
    absentMs: new Map(
      numbers.filter((number) => !connected.includes(number)).map((number) => [node(number), 60_000]),
    ),
    late: new Set(),
    sameMaps: new Set(),
    shunned: new Set(),
    unrepairable: new Set(),
    appUser: 'right',
    proof: facts.proof,
    ...facts.server,
  };
}

export function kinds(outlook: Outlook): string[] {
  return outlook.changes.map((change) => change.kind);
}
