/** The difference between the desired and the observed CouchDB: small steps, in the verified order. Pure. */
import {
  type Alarm,
  CHANGES_AT_ONCE,
  type ChangeOf,
  type CouchDbChange,
  listed,
  maintenance,
  refuse,
} from './changes.ts';
import { calledOf, coordinatorOf, disagreement, documentOf, isFilling, memberNamed } from './cluster.ts';
import { configFiles, cookieDigest, restartDigest } from './config.ts';
import type { CouchDbDesired, Disagreement } from './desired.ts';
import type { Http, Identity, Observed, Proof, Server } from './observed.ts';
import type { Progress } from './progress.ts';
import { planCluster } from './plan-cluster.ts';
import { faultWords, RESTART_UNITS } from './restart-units.ts';
import { nodesOf } from './shards.ts';

export type Phase = 'unknown' | 'down' | 'refused' | 'fresh' | 'proving' | 'serving' | 'leaving' | 'left';

/** The plan with the state of this node. `changes` is all that can be done now; `waiting` is what it waits for. */
export interface Outlook {
  readonly phase: Phase;
  readonly changes: readonly CouchDbChange[];
  readonly waiting: string | undefined;
  /** Progress of what it waits for, if that can be counted. */
  readonly progress?: Progress | undefined;
  readonly alarms: readonly Alarm[];
  /** Why administrative writes are refused (rule 2); undefined: all members are connected and agree. */
  readonly disagreement: Disagreement | undefined;
  readonly restart: RestartWord | undefined;
}

/**
 * The next step if the db nodes do not agree. Giving a node up comes last, and only if this host has no fault of its
 * own and the daemon of no missing node is reachable: a reachable node is not gone.
 */
export function disagreementNext(desired: CouchDbDesired, observed: Observed): string {
  if (observed.restartPending)
    return 'CouchDB of this host waits for a restart: check that it happens (sudo bornemisza doctor), and wait';
  const server = observed.http.kind === 'up' ? observed.http.server : undefined;
  const lost = (server?.clusterNodes ?? []).filter((node) => server?.allNodes.includes(node) === false);
  const heard = lost.filter((node) => memberNamed(desired, node)?.alive === true);
  if (heard.length > 0) {
    const names = heard.map((node) => calledOf(desired, node)).join(', ');
    return `${names} runs and its CouchDB is not connected: sudo bornemisza doctor here, then there`;
  }
  if (lost.length === 0)
    return 'wait: it ends by itself; if it stays: sudo bornemisza doctor on each db node';
  return (
    'check this host first (sudo bornemisza doctor), then bring that db node back; only if it is ' +
    'gone for good: `bornemisza remove HOST --dead`'
  );
}

/** What a node says to the others of its restart for new settings, so that they take turns. */
export type RestartWord =
  /** It continues to serve, and waits for its turn. */
  | 'due'
  /** It was requested, and CouchDB does not serve again yet. */
  | 'now';

/** The plan waits for a silent node whose process reports serving; for others as long as a link takes to recover. */
const ABSENT_GRACE_MS = 10_000;
/** A start takes 1 s, on a busy machine with much data many; asking more often would only disturb it. */
export const START_AGAIN_MS = 30_000;
/** After a full restart with a copy that cannot be proved, serving what there is beats serving nothing. */
const ALONE_AFTER_MS = 10_000;
/**
 * A restart is due for so long before it is made: settings often reach all at once, and each must know of the
 * others.
 */
const RESTART_TOLD_MS = 3000;

export function outlookOf(desired: CouchDbDesired, observed: Observed, directory: string): Outlook {
  const files = planFiles(desired, observed, directory);
  const { http } = observed;
  if (files.changes.length > 0 && (files.restart === 'now' || http.kind !== 'up'))
    return { ...outlook(phaseOffline(observed), files.changes), restart: files.restart };
  if (http.kind === 'up') {
    const going = outlookRunning(desired, observed, http.server, files.waiting);
    // The files first; what CouchDB reads without a restart, such as a new certificate, takes no node out.
    const { restart } = files;
    return files.changes.length > 0 ? { ...going, restart, changes: files.changes } : { ...going, restart };
  }
  if (http.kind === 'refused') {
    return outlook('refused', [
      refuse(
        'couchdb-password-refused',
        'CouchDB refuses the administrator’s password; it is not asked again, since five wrong ones lock the account',
        'restart CouchDB so that it takes its settings from /var/lib/bornemisza/couchdb, or remove ' +
          '[admins] from its local.ini and restart it; then `systemctl reload bornemisza@db`',
        'terminal',
      ),
    ]);
  }
  if (http.kind === 'locked') return outlookLocked(desired, observed, http.open);
  if (http.kind === 'failed') return outlookFailed(desired, http);
  if (observed.restartPending)
    return {
      ...outlook('down', restartNotDone(desired, observed)),
      waiting: 'CouchDB to be restarted',
      restart: 'now',
    };
  return outlook('down', [
    refuse(
      'couchdb-down',
      'CouchDB does not answer',
      'see `journalctl -u couchdb`, then `systemctl start couchdb`',
      'retry',
    ),
  ]);
}

/** An open CouchDB continues to serve: every start begins in maintenance, and only this daemon ends it. */
function outlookLocked(desired: CouchDbDesired, { marker, record }: Observed, open: boolean): Outlook {
  const { peerId } = desired.self;
  const serves = open && desired.duty === 'serve' && marker?.peerId === peerId && record?.peerId === peerId;
  const locked =
    'another client locked the administrator’s account of CouchDB: it sent five wrong passwords from this host';
  const next =
    'wait: the lock ends after at most 5 minutes, and the daemon then continues; `journalctl -u couchdb` ' +
    'shows the client';
  return {
    ...outlook(serves ? 'serving' : 'down', [refuse('couchdb-account-locked', locked, next, 'retry')]),
    disagreement: { message: 'the administrator’s account of CouchDB is locked', subjects: [] },
  };
}

function outlookFailed(
  desired: CouchDbDesired,
  { detail, unheard }: Extract<Http, { kind: 'failed' }>,
): Outlook {
  const subjects = unheard.map((node) => calledOf(desired, node));
  const missing = subjects.join(', ');
  const [badly, next] =
    missing === ''
      ? [`CouchDB answers badly: ${detail}`, 'see `journalctl -u couchdb`']
      : [
          `CouchDB does not answer, and ${missing} is not reachable`,
          'wait: CouchDB asks that node too, and notices within 18 s that it is gone; if it stays, see ' +
            '`journalctl -u couchdb`',
        ];
  return {
    ...outlook('down', [refuse('couchdb-answer', badly, next, 'retry')]),
    disagreement: { message: badly, subjects },
  };
}

/** A member that waits for its turn to restart continues as before; one that was never in does nothing until then. */
function outlookRunning(
  desired: CouchDbDesired,
  observed: Observed,
  server: Server,
  restart: string | undefined,
): Outlook {
  if (restart === undefined && !observed.restartPending) return outlookUp(desired, observed, server);
  const waiting = restart ?? 'CouchDB to be restarted';
  const undone = restartNotDone(desired, observed);
  if (observed.marker === undefined) return { ...outlook('unknown', undone), waiting };
  const going = outlookUp(desired, observed, server);
  return { ...going, changes: [...going.changes, ...undone], waiting: going.waiting ?? waiting };
}

/** The path unit handles and removes the request within a second; a failed unit handles none. */
function restartNotDone(desired: CouchDbDesired, observed: Observed): CouchDbChange[] {
  if (!observed.restartPending || observed.restartAskedAgoMs <= START_AGAIN_MS) return [];
  const self = calledOf(desired, desired.self.nodeName);
  return [
    refuse(
      'couchdb-restart-not-done',
      `a restart of CouchDB was requested on ${self} and did not happen: ${faultWords(observed.restartUnits ?? [])}`,
      `systemctl status ${RESTART_UNITS.join(' ')}; then sudo systemctl restart ${RESTART_UNITS[0]}`,
      'retry',
    ),
  ];
}

function planFiles(
  desired: CouchDbDesired,
  observed: Observed,
  directory: string,
): Pick<Outlook, 'changes' | 'waiting' | 'restart'> {
  const seeds = seedsFor(desired, observed);
  const changes: CouchDbChange[] = [];
  for (const file of configFiles(desired, directory, seeds)) {
    if (observed.files.get(file.name) === file.content) continue;
    changes.push({
      kind: 'file',
      file,
      summary: `${file.name}: ${observed.files.get(file.name) === undefined ? 'new' : 'changed'}`,
    });
  }
  const why = restartReason(desired, observed, directory, seeds, changes.length > 0);
  if (observed.restartPending) return { changes, waiting: undefined, restart: 'now' };
  if (why === undefined) return { changes, waiting: undefined, restart: undefined };
  // For a CouchDB that cannot be read, different settings are noticed only when they are written, which is now.
  const told = observed.http.kind !== 'up' || observed.restartDueForMs >= RESTART_TOLD_MS;
  if (!(desired.mayRestart && told) && !servesNobody(observed) && !cookieRolled(desired, observed))
    return { changes, waiting: `a restart (${why}), which waits for its turn`, restart: 'due' };
  return {
    changes: [...changes, { kind: 'restart', summary: `restart CouchDB: ${why}` }],
    waiting: undefined,
    restart: 'now',
  };
}

/** One node at a time applies to serving nodes; the start of any other one harms nobody. */
function servesNobody({ http }: Observed): boolean {
  return http.kind === 'down' || (http.kind === 'up' && http.server.maintenance);
}

/**
 * Another cookie is for all at once: a node that has it cannot connect to those that do not, so it would wait in
 * maintenance for them, and they for it. It is short, and it also cuts the removed node's own connections.
 */
function cookieRolled({ settings }: CouchDbDesired, { http }: Observed): boolean {
  if (http.kind !== 'up' || http.server.runningCookie === undefined) return false;
  return http.server.runningCookie !== cookieDigest(settings);
}

function restartReason(
  desired: CouchDbDesired,
  observed: Observed,
  directory: string,
  seeds: readonly string[],
  written: boolean,
): string | undefined {
  const { http } = observed;
  if (http.kind === 'up') {
    if (http.server.runningDigest !== restartDigest(desired, directory)) return 'it runs with other settings';
    const alone = http.server.clusterNodes.length < 2;
    return seeds.length > 0 && alone && http.server.seedlist === ''
      ? 'its data is gone, it must ask the others first'
      : undefined;
  }
  if (written) return 'its settings are new';
  if (http.kind !== 'down') return undefined;
  // Its own unit starts it again after a crash. A start that was never requested, or got lost, is requested here.
  return observed.restartAskedAgoMs > START_AGAIN_MS ? 'it does not run' : undefined;
}

/** Only if the data is gone and this node is known to have been in: see config.ts. */
function seedsFor(desired: CouchDbDesired, observed: Observed): string[] {
  if (observed.record === undefined || observed.marker !== undefined) return [];
  return desired.members
    .filter((member) => member.phase === 'in' && member.nodeName !== desired.self.nodeName)
    .map((member) => member.nodeName)
    .slice(0, 2);
}

function phaseOffline(observed: Observed): Phase {
  return observed.http.kind === 'refused' ? 'refused' : observed.http.kind === 'up' ? 'unknown' : 'down';
}

function outlookUp(desired: CouchDbDesired, observed: Observed, server: Server): Outlook {
  const { self } = desired;
  if (server.nodeName !== self.nodeName) {
    return outlook('refused', [
      refuse(
        'couchdb-other-name',
        `CouchDB runs as ${server.nodeName}, this node is ${self.nodeName}: shard maps hold the name, so ` +
          'it is fixed for the life of the data',
        'start it with the generated vm.args and an empty data directory',
        'terminal',
      ),
    ]);
  }
  const { marker } = observed;
  if (marker !== undefined && (marker.nodeName !== self.nodeName || marker.peerId !== self.peerId)) {
    return outlook('refused', [
      refuse(
        'couchdb-foreign-data',
        `the data directory belongs to ${marker.nodeName} of another node (a copied disk?)`,
        'stop CouchDB and empty its data directory, then start it again',
        'terminal',
      ),
    ]);
  }
  if (desired.duty === 'leave' && !server.clusterNodes.includes(self.nodeName))
    return outlookLeft(observed, server);
  const alone = server.clusterNodes.length < 2;
  if (alone && marker === undefined) return outlookFresh(desired, observed, server);
  return outlookMember(desired, observed, server);
}

/** Its node document is gone. A start with its data would put it back: wipe first. */
function outlookLeft(observed: Observed, server: Server): Outlook {
  const changes: CouchDbChange[] = [];
  if (!server.maintenance) changes.push(maintenance(server.nodeName, 'it has left'));
  if (observed.record !== undefined)
    changes.push({ kind: 'forget-marker', summary: 'forget that this node was in the cluster' });
  return { ...outlook('left', changes), waiting: 'CouchDB to be stopped and its data to be wiped' };
}

/** Running, alone, and without any sign that it was ever in a cluster. */
function outlookFresh(desired: CouchDbDesired, observed: Observed, server: Server): Outlook {
  const { self } = desired;
  if (desired.duty === 'leave') return outlookLeft(observed, server);
  if (observed.record !== undefined) return outlookEmptied(desired, server);
  const others = desired.members.filter(
    (member) => member.nodeName !== self.nodeName && member.phase === 'in',
  );
  const founded = others.some((member) => ['proving', 'serving', 'down'].includes(member.claim?.kind ?? ''));
  if (desired.mayFound && !founded) {
    const unheard = others.filter((member) => member.claim === undefined);
    if (unheard.length > 0) {
      const names = unheard.map((member) => member.name).join(', ');
      return {
        ...outlook('fresh', []),
        waiting: `${names}, to avoid founding a second cluster`,
      };
    }
    const identity: Identity = { nodeName: self.nodeName, peerId: self.peerId };
    return outlook('proving', [
      { kind: 'marker', identity, summary: `${self.nodeName} creates the CouchDB cluster` },
    ]);
  }
  if (server.maps.size > 0) {
    const names = [...server.maps.keys()].sort();
    return outlook('refused', [
      refuse(
        'couchdb-joiner-has-databases',
        `this CouchDB has databases of its own, which could replace the cluster's of the same name: ${listed(names)}`,
        'save what you need, stop CouchDB, empty its data directory and start it again',
        'terminal',
      ),
    ]);
  }
  const changes = server.maintenance ? [] : [maintenance(self.nodeName, 'not in the cluster yet')];
  return { ...outlook('fresh', changes), waiting: 'a member to admit this node' };
}

/**
 * Data gone, name known to the others: it waits in maintenance until they are back and its copies are complete again.
 */
function outlookEmptied(desired: CouchDbDesired, server: Server): Outlook {
  const changes = server.maintenance ? [] : [maintenance(desired.self.nodeName, 'its data is gone')];
  return {
    ...outlook('proving', changes),
    waiting: 'the other members, to get its copies again',
    alarms: [
      {
        code: 'couchdb-data-gone',
        message: `the data directory of ${desired.self.nodeName} is empty, although it was in the cluster`,
        next: 'if this was intended, wait: it gets its copies again from the others',
      },
    ],
  };
}

function outlookMember(desired: CouchDbDesired, observed: Observed, server: Server): Outlook {
  const own = planOwn(desired, observed, server);
  const reason = disagreement(desired, server);
  const leads = coordinatorOf(desired, server) === server.nodeName;
  // Opening comes first: with two db nodes only one serves until then.
  const opens = own.changes.some(({ kind }) => kind === 'open');
  const cluster =
    reason === undefined && leads
      ? planCluster(desired, server)
      : { changes: [], waiting: undefined, progress: undefined, alarms: [] };
  const waiting =
    own.waiting ?? (reason === undefined ? cluster.waiting : `all members to agree (${reason.message})`);
  const serving = !server.maintenance && !own.closing;
  const phase = desired.duty === 'leave' ? 'leaving' : serving ? 'serving' : 'proving';
  return {
    phase,
    changes: [...own.changes, ...(opens ? [] : cluster.changes)].slice(0, CHANGES_AT_ONCE),
    waiting,
    progress: own.waiting === undefined ? cluster.progress : own.progress,
    alarms: [...own.alarms, ...cluster.alarms],
    disagreement: reason,
    restart: undefined,
  };
}

interface Own {
  readonly changes: readonly CouchDbChange[];
  readonly waiting: string | undefined;
  readonly progress?: Progress | undefined;
  readonly alarms: readonly Alarm[];
  readonly closing: boolean;
}

/** What concerns this node's own maintenance and its own copies. */
function planOwn(desired: CouchDbDesired, observed: Observed, server: Server): Own {
  const { nodeName, peerId } = desired.self;
  const none = { changes: [], waiting: undefined, alarms: [], closing: false };
  // During a partition even its own documents may not be readable in time: unknown is not gone, and it continues to
  // serve.
  if (server.clusterNodes.includes(nodeName) && server.members.get(nodeName) === undefined)
    return { ...none, waiting: 'CouchDB to answer about this node' };
  const document = documentOf(server, nodeName);
  const held = document === undefined || isFilling(document);
  const unmarked = observed.marker === undefined || observed.record === undefined;
  const marker: CouchDbChange[] = unmarked
    ? [
        {
          kind: 'marker',
          identity: { nodeName, peerId },
          summary: `${nodeName} is complete: store its identity`,
        },
      ]
    : [];
  if (!server.maintenance) {
    if (held)
      return {
        ...none,
        changes: [maintenance(nodeName, 'copies are being added here')],
        closing: true,
      };
    return { ...none, changes: marker };
  }
  if (held) {
    const databases = {
      done: [...server.maps.values()].filter((map) => nodesOf(map).includes(nodeName)).length,
      all: server.maps.size,
    };
    const far = `${databases.done} of ${databases.all} databases have copies here`;
    return { ...none, waiting: `the coordinator to add this node’s copies: ${far}`, progress: { databases } };
  }
  if (desired.duty === 'leave' && !neededAlone(server))
    return { ...none, waiting: 'the coordinator to remove this node from the CouchDB cluster' };
  const blocked = absentServers(desired, server);
  if (blocked !== undefined) return { ...none, waiting: blocked };
  const late = lateMaps(server);
  if (late !== undefined) return { ...none, waiting: late };
  const verdict = judge(server.proof, server, nodeName);
  if (verdict.open) return { ...none, changes: [...marker, open(server, verdict.why)] };
  const { proof } = server;
  const progress =
    proof === undefined
      ? undefined
      : { databases: { done: proof.proved, all: proof.total }, bytes: proof.bytes };
  return { ...none, changes: verdict.changes, waiting: verdict.why, progress, alarms: verdict.alarms };
}

/** A leaver that returned in maintenance serves again only if no other node can. */
function neededAlone(server: Server): boolean {
  return server.proof?.alone === true;
}

/** The nodes to ask before this node opens: they may have what it missed. */
function absentServers(desired: CouchDbDesired, server: Server): string | undefined {
  for (const [node, absentMs] of server.absentMs) {
    const member = memberNamed(desired, node);
    if (member === undefined || member.phase === 'removed') continue;
    if (member.alive && member.claim?.kind === 'serving') return `${node}, which serves and is not connected`;
    if (absentMs < ABSENT_GRACE_MS) return `${node} to connect`;
  }
  return undefined;
}

/**
 * A node that has just been connected knows nothing yet of databases made meanwhile: nothing to prove is no proof. Once
 * both had the same number, another one is a database that is being made or deleted just now.
 */
function lateMaps(server: Server): string | undefined {
  for (const [node, word] of server.members) {
    if (word !== undefined && word.databases !== server.maps.size && !server.sameMaps.has(node))
      return `the shard maps of ${node} to arrive`;
  }
  return undefined;
}

function open(server: Server, why: string): CouchDbChange {
  const { nodeName, proof } = server;
  return {
    kind: 'open',
    node: nodeName,
    databases: proof?.busyFirst ?? [],
    busy: proof?.busy ?? 0,
    sources: server.allNodes.filter((node) => node !== nodeName),
    summary: `${nodeName}: maintenance off (${why})`,
  };
}

interface Verdict {
  readonly open: boolean;
  readonly why: string;
  readonly changes: readonly CouchDbChange[];
  readonly alarms: readonly Alarm[];
}

function judge(proof: Proof | undefined, server: Server, nodeName: string): Verdict {
  const verdict = { open: true, why: 'no other node has copies', changes: [], alarms: [] };
  if (proof === undefined) return verdict;
  if (proof.proved === proof.total)
    return { ...verdict, why: `all ${proof.total} databases are complete here` };
  const alarms = proof.lacking.filter((lack) => lack.disagree).map((lack) => disagreeAlarm(lack.database));
  if (proof.alone && proof.waitingMs > ALONE_AFTER_MS) {
    return { ...verdict, why: 'no other node serves some of its ranges (all were restarted)', alarms };
  }
  const sources = server.allNodes.filter((node) => node !== nodeName);
  const changes = proof.lacking.flatMap((lack): CouchDbChange[] => {
    const carry: ChangeOf<'carry'> = {
      kind: 'carry',
      database: lack.database,
      node: nodeName,
      sources,
      summary: `${lack.database}: _security and _revs_limit as the other copies have them`,
    };
    // Copying begins by itself when a node connects; an explicit start helps an idle database that was left behind.
    const sync: ChangeOf<'sync'> = {
      kind: 'sync',
      database: lack.database,
      summary: `${lack.database}: resume shard sync`,
    };
    return [...(lack.carry ? [carry] : []), ...(lack.incomplete && proof.waitingMs > 2000 ? [sync] : [])];
  });
  return {
    open: false,
    why: `copies to be complete: ${proof.proved} of ${proof.total} databases`,
    changes,
    alarms,
  };
}

function disagreeAlarm(database: string): Alarm {
  return {
    code: 'couchdb-security-differs',
    message: `the copies of ${database} have different _security or _revs_limit`,
    next: `set it again: PUT /${database}/_security`,
  };
}

function outlook(phase: Phase, changes: readonly CouchDbChange[]): Outlook {
  const disagreement = { message: `CouchDB of this node does not take part (${phase})`, subjects: [] };
  return { phase, changes, waiting: undefined, alarms: [], disagreement, restart: undefined };
}
