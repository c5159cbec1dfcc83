import type { Disagreement } from '../../plugins/couchdb/desired.ts';
import type { DnsDesired } from '../../plugins/dns/desired.ts';
import type { Certificates } from '../../plugins/haproxy/desired.ts';
import { floatingDecision } from '../../roles/app.ts';
import { ORDERS_READY, ORDERS_TAG, SITE_TAG } from '../../roles/certificates.ts';
import { DNS_READY, DNS_TAG, PUBLIC_TAG } from '../../roles/dns.ts';
import type { EffectiveView } from '../../roles/effective.ts';
import { guarded, type GuardInput, type GuardState } from '../../roles/guards.ts';
import { type Holding, HOLDS, HOLDS_TAG } from '../../roles/holder.ts';
import { steadyLoad } from '../../roles/load.ts';
import { inTurn, type Returns } from '../../roles/returns.ts';
import { type Silent, type WatchedHost, withSilence } from '../../roles/silence.ts';
import type { AppSituation } from '../../roles/situation.ts';
import type { Config } from '../config/config.ts';
import type { Secrets } from '../identity/secrets.ts';
import type { LocalFacts, MembershipView } from '../membership/types.ts';
import {
  CERTIFICATE_ENDING_MS,
  DNS_FAILING_MS,
  fittingTags,
  NOTICE_TAG,
  type Notices,
  noticeTag,
} from '../notification/conditions.ts';

/**
 * The one place where a node decides. Input: everything that it knows now. Output: its record, and the desired state of
 * its programs. Pure, so that it can be tested by a table of cases.
 */

export type Phase = 'starting' | 'running' | 'leaving' | 'left' | 'stopping';

/** The certificates that a node presents, as PEM. */
export interface ShownCertificates extends Omit<Certificates, 'node'> {
  readonly chain: string;
  readonly key: string;
  /** When the founder's own certificate for the site ends, in ms since the epoch; undefined where there is none. */
  readonly siteEndMs: number | undefined;
}

/** Tags of a record with their present values. */
export type Words = Readonly<Record<string, string | undefined>>;

/** Everything that a node knows at one moment. Created in one place, and frozen. */
export interface Scene {
  readonly config: Config;
  readonly phase: Phase;
  readonly view: MembershipView;
  readonly roster: Pick<GuardInput, 'revoked' | 'revokedAuthorities' | 'knownCertificates'> & {
    readonly members: GuardInput['roster'];
    /** Peer ids of app members that an operator removed. */
    readonly removedApps: readonly string[];
    /** Members of role db that were removed, by their former names and addresses. */
    readonly removedDatabases: readonly {
      readonly peerId: string;
      readonly name: string;
      readonly address: string;
    }[];
  };
  /** Undefined until they are read. */
  readonly certificates: ShownCertificates | undefined;
  /** Undefined until a db node has given this role's secrets. */
  readonly secrets: Secrets | undefined;
  readonly maintenance: boolean;
  readonly requestsLogged: boolean;
  /** Verdicts of the checks, and the verdict over all required ones. */
  readonly health: LocalFacts['health'];
  readonly services: LocalFacts['services'];
  /** Services whose check fails by a wrong answer or a refusal, not by silence. */
  readonly answerWrongly: readonly string[];
  /** The last observation of CouchDB's plugin; undefined before the first. */
  readonly couchdb: { readonly disagreement: Disagreement | undefined } | undefined;
  /** Whether this node could last read the DNS zone, and for how long it could not; undefined without `[dns]`. */
  readonly dns: { readonly works: boolean; readonly failsForMs: number } | undefined;
  /** The public part of the bundle of the site's certificate; undefined without `[certificates]`. */
  readonly site:
    | {
        readonly word: string;
        readonly thumbprint: string | undefined;
        readonly answers: DnsDesired['challenges'];
      }
    | undefined;
  /** CouchDB's data directory. */
  readonly couchdbData: string;
  /** After a completed leave CouchDB must not be started again here. */
  readonly couchdbRetired: boolean;
  /** The floating IPs are on this node's public device (mode `layer2`), or assigned to its server (mode `api`). */
  readonly holds: boolean;
  /** Tags of other parts in this node's record: rollout, root, secrets, notification, CouchDB. */
  readonly tags: Words;
  readonly settingsDigest: string;
  /** What was found when hosts were last asked. */
  readonly silence: Silent;
  /** Average of the last minute. */
  readonly load: number;
  /** Machine time, wall clock, and since the daemon's start. */
  readonly nowMs: number;
  readonly wallMs: number;
  readonly upMs: number;
}

/** The state that one look passes to the next. */
export interface Memory {
  readonly guards: GuardState;
  readonly returns: Returns;
  /** The last published load, × 100. */
  readonly load: number;
}

export interface Look {
  readonly scene: Scene;
  readonly memory: Memory;
  /** All admitted members, after the guards: the view of the programs and the operator. */
  readonly view: EffectiveView;
  /** The hosts that are asked when HAProxy finds one of them silent. */
  readonly watched: readonly WatchedHost[];
  /** Whether this node has the floating IPs, and why; undefined if there are none. */
  readonly floating: Holding | undefined;
  /** The facts in this node's own record. */
  readonly facts: LocalFacts;
}

export function look(scene: Scene, memory: Memory): Look {
  const { roster, view: believed, nowMs, wallMs } = scene;
  const { effective, state: guards } = guarded(
    { ...roster, roster: roster.members, view: believed, nowMs, wallMs },
    memory.guards,
  );
  const { role, floating: settings, edge, couchdb } = scene.config;
  const doors = { app: edge.door_port, db: couchdb.door_port };
  const { view, watched } = withSilence({ effective, view: believed, found: scene.silence, doors, nowMs });
  const decided =
    role === 'app' && settings.mode !== 'off'
      ? floatingDecision(settings.mode, { view, local: situationOf(scene) })
      : undefined;
  const { floating, returns } = inTurn(settings.mode, { view, decided, nowMs }, memory.returns);
  const load = steadyLoad(memory.load, scene.load);
  return {
    scene,
    memory: { guards, returns, load },
    view,
    watched,
    floating,
    facts: {
      health: scene.health,
      maintenance: scene.maintenance,
      services: scene.services,
      tags: tagsOf(scene, noticesOf(scene, guards, floating)),
      load,
      settingsDigest: scene.settingsDigest,
    },
  };
}

/** Why the programs run although no event came; '' if time alone changed nothing. */
export function changedByTime(
  before: Look,
  now: Look,
): { readonly text: string; readonly subjects: readonly string[] } {
  const [was, is] = [before.floating, now.floating];
  if (was?.announce !== is?.announce || was?.wait !== is?.wait)
    return { text: `floating IPs: ${is?.wait ?? is?.why ?? 'none'}`, subjects: [] };
  if (before.scene.requestsLogged && !now.scene.requestsLogged)
    return { text: 'the time of the request log is over', subjects: [] };
  const rotations = new Map(before.view.members.map(({ record, rotation }) => [record.name, rotation]));
  const subjects = now.view.members
    .filter(({ record, rotation }) => rotations.get(record.name) !== rotation)
    .map(({ record }) => record.name);
  const same = subjects.length === 0 && rotations.size === now.view.members.length;
  return { text: same ? '' : 'a guard began or ended to hold', subjects };
}

/** What a role's policy knows of this node besides the view. */
export function situationOf(scene: Scene): AppSituation {
  const { phase, health, maintenance, holds, upMs } = scene;
  return {
    health,
    edge: edgeOf(scene),
    maintenance,
    // A node that is away for longer than a restart takes itself out of traffic before it ends.
    leaving: phase === 'leaving' || phase === 'left' || phase === 'stopping',
    holds,
    upMs,
  };
}

function edgeOf({ services, answerWrongly }: Scene): AppSituation['edge'] {
  const said = services.find(({ name }) => name === 'haproxy')?.health;
  if (said === 'up') return 'answers';
  return said === 'down' && !answerWrongly.includes('haproxy') ? 'silent' : 'fails';
}

/** Conditions that no other node can see and that people must learn; any node may send them. */
function noticesOf(
  {
    health,
    phase,
    certificates,
    dns,
    wallMs,
  }: Pick<Scene, 'health' | 'phase' | 'certificates' | 'dns' | 'wallMs'>,
  { landslides }: Pick<GuardState, 'landslides'>,
  floating: Pick<Holding, 'announce'> | undefined,
): Notices {
  const endMs = certificates?.siteEndMs;
  const near = endMs !== undefined && endMs - wallMs < CERTIFICATE_ENDING_MS;
  return {
    landslides: landslides.map((each) => each.role),
    lastStanding: health === 'down' && phase === 'running' && floating?.announce === true,
    siteCertificateEndMs: near ? endMs : undefined,
    dnsFails: dns !== undefined && dns.failsForMs >= DNS_FAILING_MS,
  };
}

/** A tag is present only while it has content. */
function tagsOf(scene: Scene, notices: Notices): LocalFacts['tags'] {
  const { tags, holds } = scene;
  const held = holds ? HOLDS : tags[HOLDS_TAG];
  const all: Words = { ...tags, [NOTICE_TAG]: noticeTag(notices), [HOLDS_TAG]: held };
  const said = Object.entries(all).filter((each): each is [string, string] => (each[1] ?? '') !== '');
  return fittingTags({ ...Object.fromEntries(said), ...dnsTags(scene), ...siteTags(scene) });
}

/** The facts that the writer of the DNS records needs. */
function dnsTags({ config, dns }: Scene): LocalFacts['tags'] {
  const { public_addresses: addresses } = config.network;
  return {
    ...(addresses.length > 0 && { [PUBLIC_TAG]: addresses.join(' ') }),
    ...(dns?.works === true && { [DNS_TAG]: DNS_READY }),
  };
}

/** Settings are complete wherever there are names: `config check` sees to it. */
function siteTags({ site }: Scene): LocalFacts['tags'] {
  if (site === undefined) return {};
  return { [ORDERS_TAG]: ORDERS_READY, ...(site.word !== '' && { [SITE_TAG]: site.word }) };
}
