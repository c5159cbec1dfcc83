import { loadavg } from 'node:os';
import type { CouchDbStatus } from '../../plugins/couchdb/plugin.ts';
import { labelOf } from '../../plugins/layer2/plan.ts';
import type { AppSituation } from '../../roles/situation.ts';
import { RESTART_TAG } from '../../roles/db.ts';
import type { GuardState } from '../../roles/guards.ts';
import { HOLDS, HOLDS_TAG } from '../../roles/holder.ts';
import type { Clock } from '../clock.ts';
import { type Config, floatingDevice } from '../config/config.ts';
import type { StatusAnswer } from '../control/api.ts';
import type { Checks } from '../health/health.ts';
import { isOn } from '../health/probe.ts';
import type { Identity } from '../identity/identity.ts';
import { rankOf, type Secrets } from '../identity/secrets.ts';
import type { LocalStateFile } from '../local-state.ts';
import type { Health, LocalFacts, NodeRecord } from '../membership/types.ts';
import { CERTIFICATE_ENDING_MS, NOTICE_TAG, type Notices, noticeTag } from '../notification/conditions.ts';
import type { Notifier } from '../notification/notifier.ts';
import type { RolloutRunner } from '../rollout/runner.ts';
import { ROLLOUT_TAG } from '../rollout/policy.ts';
import { settingsDigest } from '../config/digest.ts';
import { VERSION } from '../version.ts';
import { PROTOCOL_MAX, PROTOCOL_MIN } from '../wire/limits.ts';
import { guardMemory } from './guarded-view.ts';
import type { NodePlugins } from './plugins.ts';
import type { RootFollower } from './root-follower.ts';
import { ROOT_TAG } from './root.ts';
import { SECRETS_TAG } from './secrets.ts';

/** This node's own word: what it says of itself in its record, which it alone writes and all others read. */

/** The load average travels only when it moved by this much (× 100), so that a quiet cluster stays quiet. */
const LOAD_STEP = 100;

export interface OwnWordDependencies {
  readonly clock: Clock;
  readonly startedMs: number;
  readonly config: () => Config;
  readonly phase: () => StatusAnswer['phase'];
  readonly local: Pick<LocalStateFile, 'state'>;
  readonly checks: () => Pick<Checks, 'node' | 'verdicts'>;
  readonly couchdb: () => OwnTags['couchdb'];
  readonly rollout: Pick<RolloutRunner, 'tag'>;
  readonly roots: Pick<RootFollower, 'tag'>;
  /** These are not there yet when a node first speaks. */
  readonly plugins: () => Pick<NodePlugins, 'announcement' | 'siteCertificateEndMs'> | undefined;
  readonly notifier: () => Pick<Notifier, 'tags'> | undefined;
}

/** What a node knows of itself: for all members in its record, and for its own programs. */
export class OwnWord {
  readonly #identity: Identity;
  readonly #dependencies: OwnWordDependencies;
  #load = 0;

  constructor(identity: Identity, dependencies: OwnWordDependencies) {
    this.#identity = identity;
    this.#dependencies = dependencies;
  }

  /** The record of a process that starts. @param startId names the process */
  first(startId: string): NodeRecord {
    const { clock, config } = this.#dependencies;
    const { peerId, name, role, address } = this.#identity;
    return {
      peerId,
      name,
      role,
      address,
      port: config().libp2pPort,
      incarnation: Math.floor(clock.wallMs() / 1000),
      sequence: 0,
      startId,
      version: VERSION,
      protocolMin: PROTOCOL_MIN,
      protocolMax: PROTOCOL_MAX,
      status: 'alive',
      ...this.facts(),
    };
  }

  /** What is so now, and all others should know. */
  facts(): LocalFacts {
    const { config, local, checks } = this.#dependencies;
    const { node: health, verdicts } = checks();
    this.#load = steadyLoad(this.#load, loadavg()[0] ?? 0);
    return {
      health,
      maintenance: local.state.maintenance,
      services: verdicts.map((each) => ({ name: each.name, health: each.health })),
      tags: this.#tags(),
      load: this.#load,
      settingsDigest: settingsDigest(config()),
    };
  }

  /** What a role’s policy may know of this node besides the view. */
  situation(): AppSituation {
    const { clock, startedMs, phase, local, checks } = this.#dependencies;
    const { node: health, verdicts } = checks();
    const edge = verdicts.find((each) => each.name === 'haproxy');
    return {
      health,
      edgeAnswers: edge?.health === 'up',
      maintenance: local.state.maintenance,
      // A node that goes for longer than a restart takes itself out before it ends.
      leaving: phase() === 'leaving' || phase() === 'left' || phase() === 'stopping',
      holds: this.#holds(),
      upMs: clock.monotonicMs() - startedMs,
    };
  }

  #tags(): LocalFacts['tags'] {
    const { phase, couchdb, rollout, roots, notifier } = this.#dependencies;
    return tagsOf({
      couchdb: couchdb(),
      secrets: this.#identity.secrets.get(),
      rollout: rollout.tag,
      root: phase() === 'starting' ? undefined : roots.tag,
      notices: this.#notices(),
      holds: this.#holds(),
      told: notifier()?.tags,
    });
  }

  #notices(): Notices {
    const { clock, phase, local, checks, plugins } = this.#dependencies;
    return noticesOf({
      guards: guardMemory(local.state),
      health: checks().node,
      announces: () => phase() === 'running' && plugins()?.announcement()?.announce === true,
      siteCertificateEndMs: plugins()?.siteCertificateEndMs,
      wallMs: clock.wallMs(),
    });
  }

  /** Mode `layer2`: whether the floating IPs are on the public device. Another one may have them from a former mode. */
  #holds(): boolean {
    const config = this.#dependencies.config();
    const { mode, addresses } = config.floating;
    const device = floatingDevice(config);
    return mode === 'layer2' && addresses.some((each) => isOn([device, labelOf(device)], each));
  }
}

export interface OwnTags {
  /** Of role db. */
  readonly couchdb: Pick<CouchDbStatus, 'tag' | 'restart'> | undefined;
  readonly secrets: Secrets | undefined;
  /** Its word about the rollout, once there was one. */
  readonly rollout: string | undefined;
  /** How far it is while the root is being replaced. */
  readonly root: string | undefined;
  readonly notices: Notices;
  /** Mode `layer2`: the floating IPs are on this machine. */
  readonly holds: boolean;
  /** What it told people, in tags. */
  readonly told: LocalFacts['tags'] | undefined;
}

/** A tag is there only while it says something. */
export function tagsOf(own: OwnTags): LocalFacts['tags'] {
  const { couchdb, secrets, rollout, root, holds, told } = own;
  const notices = noticeTag(own.notices);
  return {
    ...(couchdb !== undefined && { couchdb: couchdb.tag }),
    ...(couchdb?.restart !== undefined && { [RESTART_TAG]: couchdb.restart }),
    ...(secrets?.kind === 'db' && { [SECRETS_TAG]: rankOf(secrets) }),
    ...(rollout !== undefined && { [ROLLOUT_TAG]: rollout }),
    ...(root !== undefined && { [ROOT_TAG]: root }),
    ...(notices !== '' && { [NOTICE_TAG]: notices }),
    ...(holds && { [HOLDS_TAG]: HOLDS }),
    ...told,
  };
}

/** What no other node can see of this one, and a person should be told of, by whichever node tells. */
export function noticesOf(seen: {
  readonly guards: Pick<GuardState, 'landslides'>;
  readonly health: Health;
  /** Whether it draws the floating IPs; asked of a node that is down alone. */
  readonly announces: () => boolean;
  readonly siteCertificateEndMs: number | undefined;
  readonly wallMs: number;
}): Notices {
  const { guards, health, announces, siteCertificateEndMs: endMs, wallMs } = seen;
  const near = endMs !== undefined && endMs - wallMs < CERTIFICATE_ENDING_MS;
  return {
    landslides: guards.landslides.map((each) => each.role),
    lastStanding: health === 'down' && announces(),
    siteCertificateEndMs: near ? endMs : undefined,
  };
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
