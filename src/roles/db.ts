import {
  couchDbDesired,
  type CouchDbDesired,
  type DesiredFacts,
  type Disagreement,
  type MemberFacts,
  type MemberPhase,
  nodeNameOf,
} from '../plugins/couchdb/desired.ts';
import type { Certificates, DbHaproxy, PeerGroup, Permission } from '../plugins/haproxy/desired.ts';
import { peerGroup } from './app.ts';
import type { EffectiveMember, EffectiveView } from './effective.ts';

/** The part of the configuration that a db node's policy needs. */
interface DbRoleConfig {
  readonly cluster: string;
  readonly privateAddress: string;
  readonly doorPort: number;
  readonly peerPort: number;
  readonly statsPort: number;
  /** See plugins/haproxy/desired.ts. */
  readonly statisticsPassword?: string | null | undefined;
  readonly httpPort: number;
}

export interface DbInput {
  readonly view: EffectiveView;
  readonly config: DbRoleConfig;
  readonly certificates: Certificates;
  /** Undefined until this role's secrets are here: CouchDB cannot start without the cluster's cookie. */
  readonly settings: DesiredFacts['settings'] | undefined;
  /** Members that the operator removed, by their former names and addresses: their copies are given up. */
  readonly removed: readonly { readonly peerId: string; readonly name: string; readonly address: string }[];
  readonly leaving: boolean;
  /** The CouchDB plugin's decision of rule "who may edit"; undefined until its first one since the start. */
  readonly couchdb: { readonly disagreement: Disagreement | undefined } | undefined;
}

/** The doors of a db node. They exist even if CouchDB’s settings are wrong. */
export function dbHaproxy({ view, config, certificates, couchdb }: DbInput): DbHaproxy {
  const peers = view.members.filter((member) => member.record.role === 'db' && !member.self);
  return {
    instance: 'db',
    privateAddress: config.privateAddress,
    statsPort: config.statsPort,
    statisticsPassword: config.statisticsPassword,
    certificates,
    revoked: view.revoked.map(({ serialHex, address }) => ({ serialHex, address })),
    revokedAuthorities: view.revokedAuthorities,
    knownCertificates: view.knownCertificates,
    appDoorPort: config.doorPort,
    peerDoorPort: config.peerPort,
    couchdbPort: config.httpPort,
    peers: servingOnly(peerGroup(peers, 'db', config.cluster, config.peerPort), peers),
    databases: couchdb === undefined ? undefined : permissionOf(couchdb),
  };
}

/** No guard holds this: during a partition, a side that creates or deletes can cost the other side its documents. */
function permissionOf({ disagreement }: { readonly disagreement: Disagreement | undefined }): Permission {
  return disagreement === undefined
    ? { given: true, why: 'all db nodes are connected and agree' }
    : { given: false, why: disagreement.message, subjects: disagreement.subjects };
}

/** Node names of members whose daemon is silent or dead: a partition may be the reason. */
export function unheardNodes(view: EffectiveView): string[] {
  return view.members
    .filter(
      ({ self, record, state }) => record.role === 'db' && !self && (state === 'dead' || state === 'suspect'),
    )
    .map(({ record }) => nodeNameOf(record.address));
}

/** A CouchDB without a proof of completeness answers 200 with wrong data: no failover goes there. */
function servingOnly(group: PeerGroup, members: readonly EffectiveMember[]): PeerGroup {
  return {
    ...group,
    servers: group.servers.map((server, index) => {
      const tag = members[index]?.record.tags['couchdb'];
      if (tag === undefined || server.duty !== 'ready' || tag.startsWith('serving')) return server;
      return { ...server, duty: 'maint', why: `its CouchDB is not serving (${tag})` };
    }),
  };
}

/** @throws DesiredError for a value that CouchDB’s files cannot hold */
export function dbCouchDb({ view, settings, removed, leaving }: DbInput): CouchDbDesired | undefined {
  if (settings === undefined) return undefined;
  const databases = view.members.filter((member) => member.record.role === 'db');
  const members: MemberFacts[] = [
    ...databases.map((member) => ({
      peerId: member.record.peerId,
      name: member.record.name,
      address: member.record.address,
      phase: phaseOf(member, leaving),
      alive: member.self || member.state === 'alive' || member.state === 'suspect',
      tag: member.record.tags['couchdb'],
    })),
    ...removed
      .filter((gone) => !databases.some((member) => member.record.address === gone.address))
      .map((gone) => ({ ...gone, phase: 'removed' as const, alive: false, tag: undefined })),
  ];
  return couchDbDesired({ selfPeerId: view.self, members, mayRestart: mayRestart(databases), settings });
}

/** The death of a member never removes data; only its own leave or the operator does. */
function phaseOf(member: EffectiveMember, leaving: boolean): MemberPhase {
  if (member.self) return leaving ? 'leaving' : 'in';
  return member.state === 'leaving' || member.state === 'left' ? 'leaving' : 'in';
}

/** Tag of a db node's record: `due` or `now`, as the CouchDB plugin's status says. */
export const RESTART_TAG = 'couchdb-restart';

/**
 * One node at a time, in order of admission, while every other live db node serves. A node that has begun comes first;
 * so a node that does not come back with the new settings stops them for the others.
 *
 * @param databases all db nodes in order of admission
 */
export function mayRestart(databases: readonly Turn[]): boolean {
  const own = databases.findIndex(({ self }) => self);
  return databases.every(({ self, state, record }, index) => {
    if (self || (state !== 'alive' && state !== 'suspect')) return true;
    const word = record.tags[RESTART_TAG];
    return record.health === 'up' && (word === undefined || (word === 'due' && index > own));
  });
}

type Turn = Pick<EffectiveMember, 'self' | 'state'> & {
  readonly record: Pick<EffectiveMember['record'], 'health' | 'tags'>;
};
