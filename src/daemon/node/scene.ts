import { loadavg } from 'node:os';
import { shownOf, thumbprintOf } from '../../plugins/certificates/shown.ts';
import { labelOf } from '../../plugins/layer2/plan.ts';
import { EMPTY_GUARD_STATE, type GuardState } from '../../roles/guards.ts';
import { HOLDS, HOLDS_TAG } from '../../roles/holder.ts';
import type { Clock } from '../clock.ts';
import { type Config, floatingDevice } from '../config/config.ts';
import { settingsDigest } from '../config/digest.ts';
import type { PluginStatus } from '../control/api.ts';
import { requestLogEnd } from '../control/request-log.ts';
import type { Checks } from '../health/health.ts';
import { isOn } from '../health/probe.ts';
import type { Identity } from '../identity/identity.ts';
import { authorityWord } from '../identity/keys/certificates.ts';
import { rankOf } from '../identity/secrets.ts';
import { LEFT } from '../identity/roster/removal.ts';
import type { SiteStore } from '../identity/site.ts';
import type { LocalState, LocalStateFile } from '../local-state.ts';
import type { Scene, Words } from './look.ts';
import { SECRETS_TAG } from '../identity/secrets-keeper.ts';

/** The sources of a scene; other parts of the daemon pass the rest unchanged. */
interface SceneSources
  extends Pick<Scene, 'phase' | 'view' | 'certificates' | 'couchdb' | 'couchdbData' | 'couchdbRetired'> {
  readonly identity: Pick<Identity, 'roster' | 'secrets'>;
  readonly config: Config;
  readonly local: Pick<LocalStateFile, 'state'>;
  readonly checks: Pick<Checks, 'node' | 'verdicts'>;
  readonly silence: { readonly found: Scene['silence'] };
  readonly clock: Clock;
  readonly startedMs: number;
  readonly site: Pick<SiteStore, 'get' | 'word'>;
  /** Of the program for DNS records; undefined before it exists. */
  readonly dnsProgram: PluginStatus | undefined;
  /** Tags of other parts. */
  readonly said: Words;
}

/** Everything that this node knows at this moment. */
export function sceneOf(sources: SceneSources): Scene {
  const { identity, config, local, checks, clock, startedMs, said, dnsProgram } = sources;
  const { phase, view, couchdb, couchdbData, couchdbRetired } = sources;
  const secrets = identity.secrets.get();
  const nowMs = clock.monotonicMs();
  const own = config.certificates.names.length === 0;
  const shown = own ? undefined : shownOf(sources.site.get(), clock.wallMs());
  const certificates = sources.certificates && { ...sources.certificates, ...shown };
  return Object.freeze({
    config,
    phase,
    view,
    certificates,
    secrets,
    couchdb,
    couchdbData,
    couchdbRetired,
    roster: rosterOf(identity),
    maintenance: local.state.maintenance,
    requestsLogged: requestLogEnd(local.state, clock.wallMs()) !== undefined,
    health: checks.node,
    services: checks.verdicts.map(({ name, health }) => ({ name, health })),
    answerWrongly: checks.verdicts
      .filter(({ health, failure }) => health === 'down' && failure !== undefined && failure !== 'silent')
      .map(({ name }) => name),
    holds: said[HOLDS_TAG] === HOLDS || holdsFloating(config),
    dns: dnsProgram === undefined ? undefined : dnsHealth(dnsProgram, nowMs - startedMs),
    site: siteOf(sources),
    tags: { ...said, [SECRETS_TAG]: secrets?.kind === 'db' ? rankOf(secrets) : undefined },
    settingsDigest: settingsDigest(config),
    silence: sources.silence.found,
    load: loadavg()[0] ?? 0,
    nowMs,
    wallMs: clock.wallMs(),
    upMs: nowMs - startedMs,
  });
}

function siteOf({ config, site }: SceneSources): Scene['site'] {
  if (config.certificates.names.length === 0) return undefined;
  return { word: site.word, thumbprint: thumbprintOf(site.get()), answers: site.get().next?.answers ?? [] };
}

function rosterOf({ roster }: Pick<Identity, 'roster'>): Scene['roster'] {
  const revocations = roster.revocations();
  return {
    members: roster.members(),
    revoked: revocations.flatMap(({ address, serials }) =>
      serials.map((serialHex) => ({ serialHex, address })),
    ),
    revokedAuthorities: roster.revokedAuthorities().map(authorityWord),
    knownCertificates: roster.knownCertificates(),
    removedApps: revocations
      .filter(({ name, reason }) => name.endsWith('/app') && !reason.startsWith(LEFT))
      .map(({ peerId }) => peerId),
    removedDatabases: revocations.filter(({ name }) => name.endsWith('/db')),
  };
}

/** A node that never read the zone counts as failing since its start. */
function dnsHealth({ state, seen, lastConvergedAgoMs }: PluginStatus, upMs: number): Scene['dns'] {
  const fails = state === 'failing' || state === 'stopped';
  return { works: seen !== undefined && !fails, failsForMs: fails ? (lastConvergedAgoMs ?? upMs) : 0 };
}

/** Mode `layer2`: whether the floating IPs are on the public device. Another one may have them from a former mode. */
function holdsFloating(config: Config): boolean {
  const { mode, addresses } = config.floating;
  const device = floatingDevice(config);
  return mode === 'layer2' && addresses.some((each) => isOn([device, labelOf(device)], each));
}

/** The guards' state across restarts. */
export function guardMemory({ guards }: Pick<LocalState, 'guards'>): GuardState {
  return (guards as GuardState | undefined) ?? EMPTY_GUARD_STATE;
}
