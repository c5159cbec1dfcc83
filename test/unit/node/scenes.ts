import { parseConfig } from '../../../src/daemon/config/config.ts';
import type { Member, Role } from '../../../src/daemon/membership/types.ts';
import { type Look, look, type Memory, type Scene } from '../../../src/daemon/node/look.ts';
import type { EffectiveView } from '../../../src/roles/effective.ts';
import { EMPTY_GUARD_STATE } from '../../../src/roles/guards.ts';
import { NO_RETURNS } from '../../../src/roles/returns.ts';
import { member } from '../roles/cases.ts';

/** What a node knows in one moment, by what differs from an app node that is alone, up and runs. */

export const configOf = (role: Role, more = '') =>
  parseConfig(
    `[node]\ncluster = "shop"\nhost = "${role}1"\n[network]\nprivate_address = ` +
      `"10.0.0.11"\nprivate_network = "10.0.0.0/24"\nprivate_device = "eth1"\n${more}`,
    role,
    `${role}.toml`,
  );

export const BGP = '[floating]\nmode = "bgp"\naddresses = ["203.0.113.10"]\n';

export const EMPTY_MEMORY: Memory = { guards: EMPTY_GUARD_STATE, returns: NO_RETURNS, load: 0 };

export const CERTIFICATES: NonNullable<Scene['certificates']> = {
  chain: 'the chain',
  key: '-----BEGIN PRIVATE KEY-----',
  ca: 'the root',
  edge: undefined,
  siteEndMs: undefined,
};

/** As the membership machine believes. */
export function believed(name: string, changes: Partial<Member> = {}): Member {
  const { record, self } = member(name, { self: name.endsWith('1/app') });
  const times = { sinceMs: 0, heardMs: 4000 };
  return { record, self, state: 'alive', restarting: false, ...times, ...changes } as Member;
}

/** @param members all that the machine knows; the roster has admitted them in this order */
export function scene(
  members: readonly Member[] = [believed('app1/app')],
  changes: Partial<Scene> = {},
): Scene {
  const self = members.find((each) => each.self)?.record.peerId ?? '';
  return {
    config: configOf('app', BGP),
    phase: 'running',
    view: { version: 1, self, synced: true, members },
    roster: {
      members: members.map(({ record: { peerId, name, role, address } }, admittedAtMs) => ({
        ...{ peerId, name, role, address, admittedAtMs },
      })),
      revoked: [],
      revokedAuthorities: [],
      knownCertificates: [],
      removedApps: [],
      removedDatabases: [],
    },
    certificates: CERTIFICATES,
    secrets: undefined,
    maintenance: false,
    requestsLogged: false,
    health: 'up',
    services: [{ name: 'haproxy', health: 'up' }],
    answerWrongly: [],
    couchdb: undefined,
    dns: undefined,
    site: undefined,
    couchdbData: '/var/lib/couchdb',
    couchdbRetired: false,
    holds: false,
    tags: {},
    settingsDigest: 'a-digest',
    silence: { asked: [], silent: [] },
    load: 0,
    nowMs: 5000,
    wallMs: Date.parse('2026-06-01T00:00:00Z'),
    upMs: 60_000,
    ...changes,
  };
}

/** A look that saw this. */
export const seen = (view: EffectiveView): Look => ({ ...look(scene(), EMPTY_MEMORY), view });
