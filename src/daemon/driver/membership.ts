import { createPrivateKey } from 'node:crypto';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/config.ts';
import { Driver } from './driver.ts';
import type { Identity } from '../identity/identity.ts';
import { signWith, verifyByPeerId } from '../identity/keys/node-key.ts';
import type { RosterChange } from '../identity/roster/roster.ts';
import type { Log } from '../process/log.ts';
import { createMembership } from '../membership/machine.ts';
import { presets } from '../membership/preset.ts';
import type { LocalFacts, NodeRecord, PeerId } from '../membership/types.ts';
import { newSeed } from '../random.ts';
import { VERSION } from '../version.ts';
import { PROTOCOL_MAX, PROTOCOL_MIN } from '../wire/limits.ts';
import { SeedSearch } from './seed-search.ts';
import { Transport } from '../transport/transport.ts';
import { signer } from '../wire/record.ts';
import { driverRoster, presentedChain } from '../identity/roster/presented.ts';

/** Notes of the driver for operators, with the next step. All others are for debugging. */
const NOTES_FOR_PEOPLE: ReadonlyMap<string, string> = new Map([
  ['snapshot-unusable', 'wait: the other members send their records again; check the disk if it repeats'],
  [
    'snapshot-failed',
    'free a full disk (df -h /var/lib), check what is mounted (findmnt -T /var/lib); it is tried again',
  ],
]);

interface MembershipOptions {
  readonly config: Pick<Config, 'membership' | 'network' | 'libp2pPort'>;
  /** The first facts of this node's record. */
  readonly self: NodeRecord;
  readonly snapshotPath: string;
}
interface MembershipDependencies {
  readonly clock: Clock;
  readonly log: Log;
  /** Called for every change that the network brings. */
  readonly rosterChanged: (change: RosterChange) => void;
  /** A member was found at another address than the one in its record. */
  readonly found: (peer: PeerId, where: string) => void;
}
interface MembershipParts {
  readonly driver: Driver;
  readonly transport: Transport;
  readonly seeds: SeedSearch;
}

/** The record of a process that starts. @param startId names the process */
export function firstRecord(
  { peerId, name, role, address }: Pick<Identity, 'peerId' | 'name' | 'role' | 'address'>,
  { port, startId, wallMs }: { readonly port: number; readonly startId: string; readonly wallMs: number },
  facts: LocalFacts,
): NodeRecord {
  return {
    ...{ peerId, name, role, address, port },
    incarnation: Math.floor(wallMs / 1000),
    sequence: 0,
    startId,
    version: VERSION,
    protocolMin: PROTOCOL_MIN,
    protocolMax: PROTOCOL_MAX,
    status: 'alive',
    ...facts,
  };
}

/** The machine, its driver, its transport and the search for members, assembled and not started. */
export function assembleMembership(
  identity: Identity,
  options: MembershipOptions,
  dependencies: MembershipDependencies,
): MembershipParts {
  const { clock, log, rosterChanged } = dependencies;
  const { cluster, address, peerId, founder, nodeKey } = identity;
  const { config, self, snapshotPath } = options;
  const key = createPrivateKey(nodeKey.pem);
  const machine = createMembership({
    self,
    signer: signer(signWith(key)),
    preset: presets[config.membership.preset],
    seed: newSeed(),
  });
  let transport!: Transport;
  const driver = new Driver(
    { self: peerId, founder, snapshotPath },
    {
      machine,
      roster: driverRoster(identity, rosterChanged),
      verify: verifyByPeerId(),
      clock: { nowMs: () => clock.monotonicMs() },
      transport: (events, gate) => {
        const chain = presentedChain(identity);
        transport = new Transport(
          { nodeKey: key, cluster, address, port: config.libp2pPort, chain },
          { gate, events },
        );
        return transport;
      },
      onNote: (code, peer, detail) => {
        const next = NOTES_FOR_PEOPLE.get(code);
        if (next === undefined) log.debug({ code, peer, detail }, 'membership');
        else log.warn({ code, next }, detail);
      },
    },
  );
  return { driver, transport, seeds: seedSearch(identity, config, transport, dependencies) };
}

function seedSearch(
  { address, seeds: joined, roster }: Identity,
  { membership, network, libp2pPort }: MembershipOptions['config'],
  transport: Pick<Transport, 'peers' | 'find'>,
  { clock, log, found }: MembershipDependencies,
): SeedSearch {
  const { seeds, srv } = membership;
  return new SeedSearch(
    {
      seeds,
      srv,
      joined,
      own: { address, port: libp2pPort },
      privateNetwork: network.private_network,
    },
    {
      alone: () => transport.peers().length === 0 && roster.members().length > 1,
      find: (where, port) => transport.find(where, port),
      nowMs: () => clock.monotonicMs(),
      found,
      note: (detail) => log.debug(detail, 'searching for members'),
    },
  );
}

/** Two processes have the same key: the later one ends. */
export const THIS_IS_A_CLONE =
  'another process with this node’s key started first: this is a clone or an old backup -- run ' +
  '`bornemisza join --reset -` with a new token';
export const CLONED = {
  message: 'another process that started later has this node’s key, and must stop',
  next: 'find the cloned machine and join it with a token of its own',
};
