/**
 * The coordinator's work for the cluster, one stage at a time: repair, remove, admit, fill, empty. Called only while
 * all members are connected and agree. Pure.
 */
import { type Alarm, CHANGES_AT_ONCE, type CouchDbChange, listed, maintenance, refuse } from './changes.ts';
import type { AppUserState } from './app-user.ts';
import {
  arbiterOf,
  boundNodes,
  documentOf,
  isDecom,
  isFilling,
  isGhost,
  isGone,
  markOf,
  memberNamed,
  servedElsewhere,
  stayersOf,
} from './cluster.ts';
import { clusterDigest } from './config.ts';
import type { CouchDbDesired, DesiredMember } from './desired.ts';
import type { Mark, NodeDocument, Server } from './observed.ts';
import type { Progress } from './progress.ts';
import {
  idOf,
  lastCopies,
  loadOf,
  losersOf,
  nodesOf,
  rangesOn,
  rangesToAdd,
  revOf,
  type ShardMap,
} from './shards.ts';

interface ClusterPlan {
  readonly changes: readonly CouchDbChange[];
  readonly waiting: string | undefined;
  readonly progress?: Progress | undefined;
  readonly alarms: readonly Alarm[];
}

interface Scene {
  readonly desired: CouchDbDesired;
  readonly server: Server;
  readonly arbiter: string;
  /** Connected members, in order of name. */
  readonly bound: readonly string[];
  readonly stayers: readonly string[];
  readonly alarms: Alarm[];
}

type Stage = (scene: Scene) => Pick<ClusterPlan, 'changes' | 'waiting' | 'progress'> | undefined;

/** In this order: only the first stage that has something to do or to wait for. */
const stages: readonly Stage[] = [
  repairNodeDocuments,
  repairMaps,
  takeBackJoins,
  expelGone,
  markLeavers,
  fillNodes,
  settleJoiners,
  // Before a leaver is emptied: a replacement joins first and gets the copies.
  admitJoiner,
  createSystemDatabases,
  makeAppUser,
  emptyLeavers,
];

export function planCluster(desired: CouchDbDesired, server: Server): ClusterPlan {
  const scene: Scene = {
    desired,
    server,
    arbiter: arbiterOf(desired, server),
    bound: boundNodes(desired, server),
    stayers: stayersOf(desired, server),
    alarms: strangers(desired, server),
  };
  for (const stage of stages) {
    const found = stage(scene);
    if (found !== undefined) return { ...found, alarms: scene.alarms };
  }
  return { changes: [], waiting: undefined, alarms: scene.alarms };
}

function strangers(desired: CouchDbDesired, server: Server): Alarm[] {
  return server.clusterNodes
    .filter((node) => memberNamed(desired, node) === undefined)
    .map((node) => ({
      code: 'couchdb-stranger',
      message: `${node} is in the CouchDB cluster, but is not a member`,
      next:
        'join its machine with a token; if it is gone for good, delete its node document ' +
        '(docs/operations.md, “A stranger in CouchDB”)',
    }));
}

function work(changes: readonly CouchDbChange[], waiting?: string, progress?: Progress) {
  return { changes: changes.slice(0, CHANGES_AT_ONCE), waiting, progress };
}

/** After a join the joiner's own first document always stays behind as a loser: an everyday repair. */
function repairNodeDocuments(scene: Scene) {
  const changes: CouchDbChange[] = [];
  for (const node of scene.server.clusterNodes) {
    const document = documentOf(scene.server, node);
    const losers = document === undefined ? [] : losersOf(document);
    if (losers.length === 0) continue;
    changes.push({
      kind: 'repair-node-document',
      node,
      arbiter: scene.arbiter,
      losers,
      summary: `${node}: drop ${losers.length} losing node document(s)`,
    });
  }
  return changes.length > 0 ? work(changes) : undefined;
}

function repairMaps(scene: Scene) {
  const changes: CouchDbChange[] = [];
  for (const map of scene.server.maps.values()) {
    if (losersOf(map).length === 0) continue;
    const database = idOf(map);
    const hopeless = scene.server.unrepairable.has(`${database} ${revOf(map)}`);
    scene.alarms.push({
      code: 'couchdb-map-conflict',
      message: `${database} has two shard maps (edited or created on both sides of a partition)`,
      next: hopeless
        ? 'both have documents: copy the losing map and its files under another name, replicate from ' +
          'there, then delete the losing revision'
        : 'wait: it is being repaired',
    });
    if (hopeless) continue;
    changes.push({
      kind: 'repair-map',
      database,
      arbiter: scene.arbiter,
      members: scene.bound,
      summary: `${database}: repair its shard map`,
    });
  }
  return changes.length > 0 ? work(changes) : undefined;
}

function takeBackJoins(scene: Scene) {
  const { server, desired, arbiter, bound } = scene;
  const ghosts = server.clusterNodes.filter((node) => isGhost(desired, server, node));
  const changes = ghosts.map((node): CouchDbChange => {
    return {
      kind: 'expel',
      node,
      through: arbiter,
      witnesses: bound,
      shun: true,
      summary: `${node}: undo a join that never connected`,
    };
  });
  return changes.length > 0 ? work(changes) : undefined;
}

function markLeavers(scene: Scene) {
  const leaving = leaversOf(scene);
  if (leaving.length === 0) return undefined;
  if (scene.stayers.length === 0) return work([lastNode(scene)]);
  // A cluster whose every node is decom creates no database: `no_nodes_in_zone`.
  const changes = leaving
    .filter((node) => {
      const document = documentOf(scene.server, node);
      return document !== undefined && !(isDecom(document) && markOf(document) === 'leaving');
    })
    .map((node) => edit(scene, node, true, 'leaving', 'it is leaving'));
  return changes.length > 0 ? work(changes) : undefined;
}

function lastNode(scene: Scene): CouchDbChange {
  const lost = lastCopies(scene.server.maps.values(), leaversOf(scene));
  return refuse(
    'couchdb-last-node',
    `the last copies of ${lost.length} databases are on the leaving node: ${listed(lost)}`,
    'add another db node first, or save the data and stop this one',
    'terminal',
  );
}

/** The operator gave the node up. Copies that only it had stay in the maps, as its disk may return. */
function expelGone(scene: Scene) {
  const { server, desired, arbiter, bound, stayers } = scene;
  const gone = desired.members
    .filter((member) => member.phase === 'removed')
    .map((member) => member.nodeName);
  const dead = [...new Set(gone)].filter((node) => isGone(desired, node));
  const changes: CouchDbChange[] = [];
  for (const node of dead) {
    const lost = new Set(lastCopies(server.maps.values(), dead));
    const held = [...server.maps.values()].filter((map) => nodesOf(map).includes(node));
    if (held.some((map) => lost.has(idOf(map)))) {
      scene.alarms.push({
        code: 'couchdb-last-copy',
        message: `the only copies of some ranges were on ${node}: ${listed([...lost].sort())}`,
        next: 'bring its disk back under the same name and address, or delete these databases',
      });
    }
    if (server.clusterNodes.includes(node)) {
      const through = server.allNodes.includes(node) ? node : arbiter;
      changes.push({
        kind: 'expel',
        node,
        through,
        witnesses: bound,
        shun: false,
        summary: `${node}: removed from the cluster (by the operator)`,
      });
      continue;
    }
    for (const map of held.filter((one) => !lost.has(idOf(one)))) {
      changes.push(removal(scene, map, node, stayers, true));
    }
  }
  return changes.length > 0 ? work(changes) : undefined;
}

/** One node at a time gets new copies, joiners first, and it is in maintenance while it does. */
function fillNodes(scene: Scene) {
  const lacks = lacking(scene);
  const inHand = scene.stayers.find((node) => isFilling(documentOf(scene.server, node) as NodeDocument));
  if (inHand !== undefined) return fill(scene, inHand, lacks.get(inHand) ?? []);
  for (const target of [...lacks.keys()].sort(byName)) {
    // New databases do not stop it: it opens with what it has, and gets the rest afterwards.
    if (provesItself(scene, target)) continue;
    const closed = closedNodes(scene, scene.bound).filter((node) => node !== target);
    if (closed.length > 0)
      return work([], `${closed.join(', ')} to leave maintenance, before ${target} gets copies`);
    const only = servedOnlyBy(scene, target);
    if (only.length === 0) return beginFill(scene, target);
    scene.alarms.push({
      code: 'couchdb-cannot-fill',
      message: `${target} needs more copies, but is the only one that serves ${listed(only)}`,
      next: 'add a db node: it gets the missing copies without an interruption',
    });
  }
  return undefined;
}

/** All wanted copies are in the maps; the node proves them before it opens. */
function provesItself({ server }: Scene, node: string): boolean {
  const document = documentOf(server, node);
  return (
    document !== undefined && markOf(document) === 'filled' && server.members.get(node)?.maintenance === true
  );
}

/** The mark first: without it the target's own daemon would end the maintenance again. */
function beginFill(scene: Scene, target: string) {
  const decom = isDecom(documentOf(scene.server, target) as NodeDocument);
  return work([
    edit(scene, target, decom, 'filling', 'copies will be added'),
    maintenance(target, 'copies will be added'),
  ]);
}

function fill(scene: Scene, target: string, additions: readonly CouchDbChange[]) {
  const { server, desired } = scene;
  if (server.members.get(target)?.maintenance !== true)
    return work([maintenance(target, 'copies are being added')]);
  const decom = isDecom(documentOf(server, target) as NodeDocument);
  // While new databases are kept off it, each new one has to be added later, possibly without end.
  const wanted = decom ? additions.filter((change) => !server.late.has(databaseOf(change))) : additions;
  if (wanted.length > 0) {
    const databases = { done: Math.max(0, server.maps.size - wanted.length), all: server.maps.size };
    const far = `${databases.done} of ${databases.all} databases have theirs`;
    return work(wanted, `copies to be added on ${target}: ${far}`, { databases });
  }
  if (decom && additions.length > 0)
    return work([
      edit(scene, target, false, 'filling', 'databases are being made: the next ones get copies here'),
    ]);
  const why = `all its copies are in the maps, ${desired.settings.n} of each range are wanted`;
  return work([edit(scene, target, decom, decom ? 'filled' : undefined, why)]);
}

function closedNodes(scene: Scene, nodes: readonly string[]): string[] {
  return nodes.filter((node) => scene.server.members.get(node)?.maintenance !== false);
}

/** A serving node goes into maintenance only if the others can serve everything that it has. */
function servedOnlyBy(scene: Scene, target: string): string[] {
  return [...scene.server.maps.values()]
    .filter((map) =>
      rangesOn(map, target).some((range) => !servedElsewhere(map, range, target, scene.server)),
    )
    .map(idOf)
    .sort(byName);
}

/** Additions by target. */
function lacking(scene: Scene): Map<string, CouchDbChange[]> {
  const { server, desired, stayers, arbiter, bound } = scene;
  const load = loadOf(server.maps.values());
  const lacks = new Map<string, CouchDbChange[]>();
  for (const map of server.maps.values()) {
    for (const node of stayers) {
      const ranges = rangesToAdd(map, node, stayers, desired.settings.n, load);
      // Without any connected holder there is nothing to copy from.
      const sources = nodesOf(map).filter((holder) => bound.includes(holder) && holder !== node);
      const copyable = ranges.filter((range) =>
        (map.by_range[range] ?? []).some((holder) => sources.includes(holder)),
      );
      if (copyable.length === 0) continue;
      const database = idOf(map);
      const change: CouchDbChange = {
        kind: 'add-copies',
        database,
        node,
        ranges: copyable,
        arbiter,
        sources,
        members: bound,
        summary: `${database}: add ${copyable.length} range(s) on ${node}`,
      };
      lacks.set(node, [...(lacks.get(node) ?? []), change]);
    }
  }
  return lacks;
}

/** Complete and open: from now on it may hold new databases. */
function settleJoiners(scene: Scene) {
  const { server, stayers } = scene;
  for (const node of stayers) {
    const document = documentOf(server, node) as NodeDocument;
    if (!isDecom(document)) {
      // A cancelled leave leaves only the mark.
      if (markOf(document) !== undefined) return work([edit(scene, node, false, undefined, 'settled')]);
      continue;
    }
    if (markOf(document) === 'leaving')
      return work([edit(scene, node, false, undefined, 'its leave was cancelled')]);
    if (server.members.get(node)?.maintenance === true) return work([], `${node} to prove its copies`);
    return work([edit(scene, node, false, undefined, 'complete and open')]);
  }
  return undefined;
}

function emptyLeavers(scene: Scene) {
  const { server, stayers } = scene;
  const node = leaversOf(scene)[0];
  if (node === undefined) return undefined;
  const closed = closedNodes(scene, stayers);
  if (closed.length > 0) return work([], `${closed.join(', ')} to prove copies, before ${node} is emptied`);
  const held = [...server.maps.values()].filter((map) => nodesOf(map).includes(node));
  const short = [...new Set([...lacking(scene).values()].flat().map(databaseOf))].sort(byName);
  if (short.length > 0) {
    const message = `without ${node} there would be too few copies of ${listed(short)}`;
    return work([
      refuse(
        'couchdb-last-copy',
        message,
        'add a db node, or see the alarms of `bornemisza status`',
        'retry',
      ),
    ]);
  }
  // From here on nothing is written to it alone: what it has must be proved on the others.
  if (server.members.get(node)?.maintenance !== true)
    return work([maintenance(node, 'its copies will be removed')]);
  if (held.length > 0) return work(held.map((map) => removal(scene, map, node, stayers, false)));
  return work([
    {
      kind: 'expel',
      node,
      through: node,
      witnesses: scene.bound,
      shun: false,
      summary: `${node}: removed from the cluster`,
    },
  ]);
}

function databaseOf(change: CouchDbChange): string {
  return 'database' in change ? change.database : '';
}

function removal(
  scene: Scene,
  map: ShardMap,
  node: string,
  stayers: readonly string[],
  gone: boolean,
): CouchDbChange {
  const database = idOf(map);
  const keep = nodesOf(map).filter((holder) => stayers.includes(holder));
  return {
    kind: 'remove-copies',
    database,
    node,
    arbiter: scene.arbiter,
    stayers: keep,
    gone,
    members: scene.bound,
    summary: `${database}: removed from ${node}, ${keep.length} node(s) keep it`,
  };
}

/** After the first join, if one is about to happen, so that they get two copies at once. */
function createSystemDatabases(scene: Scene) {
  const { desired, server } = scene;
  const missing = desired.systemDatabases.filter((name) => !server.maps.has(name));
  if (missing.length === 0) return undefined;
  if (server.members.get(server.nodeName)?.maintenance !== false)
    return work([], 'this node to open, before system databases are made');
  return work(
    missing.map((database) => ({ kind: 'create-database', database, summary: `create ${database}` })),
  );
}

const APP_USER_LACKS: Readonly<Record<AppUserState, string | undefined>> = {
  right: undefined,
  unasked: undefined,
  missing: 'it does not exist',
  'other-password': 'it has another password',
  'no-role': 'it lacks its role',
  'users-closed': '_users does not give access to it and to people with an account',
};

function makeAppUser(scene: Scene) {
  const why = APP_USER_LACKS[scene.server.appUser];
  return why === undefined
    ? undefined
    : work([{ kind: 'app-user', summary: `the user of the app nodes: ${why}` }]);
}

/** One at a time, and only one that runs the same version with the same secrets: CouchDB itself checks nothing. */
function admitJoiner(scene: Scene) {
  const { desired, arbiter, bound } = scene;
  const node = desired.members.find((member) => joins(scene, member))?.nodeName;
  if (node === undefined) return undefined;
  const closed = closedNodes(scene, bound);
  if (closed.length > 0)
    return work([], `${closed.join(', ')} to leave maintenance, before ${node} is admitted`);
  return work([
    { kind: 'admit', node, arbiter, summary: `${node}: added to the cluster, no new databases on it yet` },
  ]);
}

function joins(scene: Scene, member: DesiredMember): boolean {
  const { desired, server } = scene;
  const { claim, nodeName } = member;
  if (member.phase !== 'in' || !member.alive || claim?.kind !== 'fresh') return false;
  if (server.clusterNodes.includes(nodeName)) return false;
  if (server.shunned.has(nodeName)) {
    scene.alarms.push({
      code: 'couchdb-joiner-silent',
      message: `${nodeName} was admitted and did not connect`,
      next:
        'check that epmd (4369) and the distribution port are open between the db nodes, and its cookie ' +
        'and certificate',
    });
    return false;
  }
  if (claim.version !== server.version) {
    scene.alarms.push({
      code: 'couchdb-version-differs',
      message: `${member.name} runs CouchDB ${claim.version}, the cluster ${server.version}`,
      next: 'install the same version there',
    });
    return false;
  }
  if (claim.digest === clusterDigest(desired.settings)) return true;
  scene.alarms.push({
    code: 'couchdb-settings-differ',
    message: `${member.name} runs with another cookie, secret or cluster setting`,
    next: 'wait: it gets the present ones by a restart; see `bornemisza status` there',
  });
  return false;
}

function leaversOf(scene: Scene): string[] {
  return scene.bound.filter((node) => memberNamed(scene.desired, node)?.phase === 'leaving');
}

function edit(
  scene: Scene,
  node: string,
  decom: boolean,
  mark: Mark | undefined,
  why: string,
): CouchDbChange {
  return {
    kind: 'node-document',
    node,
    arbiter: scene.arbiter,
    decom,
    mark,
    summary: `${node}: ${describe(decom, mark)} (${why})`,
  };
}

function describe(decom: boolean, mark: Mark | undefined): string {
  return [
    decom ? 'no new databases' : 'new databases allowed',
    ...(mark === undefined ? [] : [`marked ${mark}`]),
  ].join(', ');
}

function byName(a: string, b: string): number {
  return a < b ? -1 : 1;
}
