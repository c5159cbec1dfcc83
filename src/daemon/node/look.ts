import type { Disagreement } from '../../plugins/couchdb/desired.ts';
import type { Certificates } from '../../plugins/haproxy/desired.ts';
import { floatingDecision } from '../../roles/app.ts';
import { ORDERS_READY, ORDERS_TAG, SITE_TAG } from '../../roles/certificates.ts';
import { DNS_READY, DNS_TAG, PUBLIC_TAG } from '../../roles/dns.ts';
import type { EffectiveView } from '../../roles/effective.ts';
import { guarded, type GuardInput, type GuardState } from '../../roles/guards.ts';
import { type Holding, HOLDS, HOLDS_TAG } from '../../roles/holder.ts';
import type { AppSituation } from '../../roles/situation.ts';
import type { Config } from '../config/config.ts';
import type { Secrets } from '../identity/secrets.ts';
import type { LocalFacts, MembershipView } from '../membership/types.ts';
import {
  CERTIFICATE_ENDING_MS,
  DNS_FAILING_MS,
  NOTICE_TAG,
  type Notices,
  noticeTag,
} from '../notification/conditions.ts';

/**
 * The one place where a node decides. Input: everything that it knows now. Output: its record, and the desired state of
 * its programs. Pure, so that it can be tested by a table of cases.
 */

export type Phase = 'starting' | 'running' | 'leaving' | 'left' | 'stopping';

/** What a node shows to others, as PEM. */
export interface ShownCertificates extends Omit<Certificates, 'node'> {
  readonly chain: string;
  readonly key: string;
  /** When the founder's own certificate for the site ends, in ms since the epoch; undefined where there is none. */
  readonly siteEndMs: number | undefined;
}

/** Tags of a record, each with what it says now. */
export type Words = Readonly<Record<string, string | undefined>>;

/** What a node knows in one moment. Made in one place, and frozen. */
export interface Scene {
  readonly config: Config;
  readonly phase: Phase;
  readonly view: MembershipView;
  readonly roster: Pick<GuardInput, 'revoked' | 'revokedAuthorities' | 'knownCertificates'> & {
    readonly members: GuardInput['roster'];
    /** Peer ids of members of role app that were put out by an operator. */
    readonly removedApps: readonly string[];
    /** Members of role db that were removed, by their former names and addresses. */
    readonly removedDatabases: readonly {
      readonly peerId: string;
      readonly name: string;
      readonly address: string;
    }[];
  };
  /** Undefined until they were read. */
  readonly certificates: ShownCertificates | undefined;
  /** Undefined until a db node gave this role's. */
  readonly secrets: Secrets | undefined;
  readonly maintenance: boolean;
  /** Verdicts of the checks, and the verdict over all that are required. */
  readonly health: LocalFacts['health'];
  readonly services: LocalFacts['services'];
  /** Services whose check fails by its answer or a refusal, and not for want of an answer. */
  readonly answerWrongly: readonly string[];
  /** What CouchDB's plugin saw at its last observation; undefined before the first. */
  readonly couchdb: { readonly disagreement: Disagreement | undefined } | undefined;
  /**
   * Whether this node could read the zone of the DNS records at its last look, and how long it could not; undefined
   * without `[dns]`.
   */
  readonly dns: { readonly works: boolean; readonly failsForMs: number } | undefined;
  /** What of the bundle of the site's certificate others may know; undefined without `[certificates]`. */
  readonly site: { readonly word: string; readonly thumbprint: string | undefined } | undefined;
  /** CouchDB's data directory. */
  readonly couchdbData: string;
  /** After a finished leave CouchDB is not to be started again here. */
  readonly couchdbRetired: boolean;
  /** The floating IPs are on this node's public device (mode `layer2`), or assigned to its server (mode `api`). */
  readonly holds: boolean;
  /** What other parts of the daemon say in this node's record: rollout, root, secrets, notification, CouchDB. */
  readonly tags: Words;
  readonly settingsDigest: string;
  /** Average of the last minute. */
  readonly load: number;
  /** Machine time, wall clock, and since the daemon's start. */
  readonly nowMs: number;
  readonly wallMs: number;
  readonly upMs: number;
}

/** What one look leaves for the next. */
export interface Memory {
  readonly guards: GuardState;
  /** The load that was said last, × 100. */
  readonly load: number;
}

export interface Look {
  readonly scene: Scene;
  readonly memory: Memory;
  /** Everybody who is admitted, as the guards leave them: what the programs and the operator are shown. */
  readonly view: EffectiveView;
  /** Whether this node draws the floating IPs, and why; undefined where there are none. */
  readonly floating: Holding | undefined;
  /** What this node says of itself to all others. */
  readonly facts: LocalFacts;
}

/** The load average travels only when it moved by this much (× 100), so that a quiet cluster stays quiet. */
const LOAD_STEP = 100;

export function look(scene: Scene, memory: Memory): Look {
  const { roster, view: believed, nowMs, wallMs } = scene;
  const { effective: view, state: guards } = guarded(
    { ...roster, roster: roster.members, view: believed, nowMs, wallMs },
    memory.guards,
  );
  const { role, floating: settings } = scene.config;
  const floating =
    role === 'app' && settings.mode !== 'off'
      ? floatingDecision(settings.mode, { view, local: situationOf(scene) })
      : undefined;
  const load = steadyLoad(memory.load, scene.load);
  return {
    scene,
    memory: { guards, load },
    view,
    floating,
    facts: {
      health: scene.health,
      maintenance: scene.maintenance,
      services: scene.services,
      tags: { ...tagsOf(scene, noticesOf(scene, guards, floating)), ...dnsTags(scene), ...siteTags(scene) },
      load,
      settingsDigest: scene.settingsDigest,
    },
  };
}

/** Why the programs are run after a time without any event; '' if time changed nothing. */
export function changedByTime(
  before: Look,
  now: Look,
): { readonly text: string; readonly subjects: readonly string[] } {
  if (before.floating?.announce !== now.floating?.announce)
    return { text: `floating IPs: ${now.floating?.why ?? 'none'}`, subjects: [] };
  const was = new Map(before.view.members.map(({ record, rotation }) => [record.name, rotation]));
  const subjects = now.view.members
    .filter(({ record, rotation }) => was.get(record.name) !== rotation)
    .map(({ record }) => record.name);
  const same = subjects.length === 0 && was.size === now.view.members.length;
  return { text: same ? '' : 'a guard began or ended to hold', subjects };
}

/** What a role's policy may know of this node besides the view. */
export function situationOf(scene: Scene): AppSituation {
  const { phase, health, maintenance, holds, upMs } = scene;
  return {
    health,
    edge: edgeOf(scene),
    maintenance,
    // A node that goes for longer than a restart takes itself out before it ends.
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

/** What no other node can see of this one, and a person should learn; any node may send it. */
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

/** A tag is there only while it says something. */
function tagsOf({ tags, holds }: Scene, notices: Notices): LocalFacts['tags'] {
  const all: Words = {
    ...tags,
    [NOTICE_TAG]: noticeTag(notices),
    [HOLDS_TAG]: holds ? HOLDS : tags[HOLDS_TAG],
  };
  return Object.fromEntries(
    Object.entries(all).flatMap(([name, word]) => (word === undefined || word === '' ? [] : [[name, word]])),
  );
}

/** What who writes the DNS records must know. */
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

/**
 * @param said the load that was said last, × 100
 * @param load average of the last minute
 * @returns what to say now, × 100
 */
export function steadyLoad(said: number, load: number): number {
  const now = Math.round(load * 100);
  return Math.abs(now - said) >= LOAD_STEP ? now : said;
}
