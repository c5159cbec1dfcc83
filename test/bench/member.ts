import { createPrivateKey } from 'node:crypto';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Driver } from '../../src/daemon/driver/driver.ts';
import { loadIdentity } from '../../src/daemon/identity/identity.ts';
import { createMembership } from '../../src/daemon/membership/machine.ts';
import { presets } from '../../src/daemon/membership/preset.ts';
import type { Effect, Event, LocalFacts, Membership, NodeRecord } from '../../src/daemon/membership/types.ts';
import { driverRoster, presentedChain } from '../../src/daemon/identity/roster/presented.ts';
import { newSeed, newStartId } from '../../src/daemon/random.ts';
import { signWith, verifyByPeerId } from '../../src/daemon/identity/keys/node-key.ts';
import { Transport } from '../../src/daemon/transport/transport.ts';
import { VERSION } from '../../src/daemon/version.ts';
import { PROTOCOL_MAX, PROTOCOL_MIN } from '../../src/daemon/wire/limits.ts';
import { signer } from '../../src/daemon/wire/record.ts';
import { Attacker } from './attacks.ts';
import { heapFigures } from './heap.ts';
import type { Command, Said } from './member-words.ts';

/**
 * The membership of a daemon and nothing else of it: identity with its certificates, machine, driver and transport, put
 * together as `src/daemon/driver/membership.ts` does, in a process of its own. Commands come in on standard input, what
 * it sees goes out on standard output, a line of JSON each. Argument: the state directory, as `init` and `join` leave
 * it.
 */
const PORT = 4101;

const [stateDir = ''] = process.argv.slice(2);
const identity = await loadIdentity(stateDir, Date.now());
const facts: LocalFacts = {
  health: 'up',
  maintenance: false,
  services: [{ name: 'haproxy', health: 'up' }],
  tags: {},
  load: 0,
  settingsDigest: '0123456789abcdef',
};
let linksLost = 0;

function say(words: Said): void {
  process.stdout.write(`${JSON.stringify(words)}\n`);
}

function firstRecord(): NodeRecord {
  const { peerId, name, role, address } = identity;
  return {
    peerId,
    name,
    role,
    address,
    port: PORT,
    incarnation: Math.floor(Date.now() / 1000),
    sequence: 0,
    startId: newStartId(Date.now()),
    version: VERSION,
    protocolMin: PROTOCOL_MIN,
    protocolMax: PROTOCOL_MAX,
    status: 'alive',
    ...facts,
  };
}

/** A link that was given back on purpose is not dialled again: that tells the lost ones. */
function countingLost(machine: Membership): Membership {
  return {
    get view() {
      return machine.view;
    },
    snapshot: () => machine.snapshot(),
    step(event: Event, nowMs: number): Effect[] {
      const effects = machine.step(event, nowMs);
      if (event.kind === 'connected')
        say({ kind: 'linked', name: identity.roster.get(event.peer)?.name ?? '' });
      if (event.kind === 'disconnected' && effects.some((effect) => effect.kind === 'connect'))
        linksLost += 1;
      return effects;
    },
  };
}

const key = createPrivateKey(identity.nodeKey.pem);
const machine = createMembership({
  self: firstRecord(),
  signer: signer(signWith(key)),
  preset: presets.lan,
  seed: newSeed(),
});
let transport: Transport | undefined;
const driver = new Driver(
  {
    self: identity.peerId,
    founder: identity.founder,
    snapshotPath: join(stateDir, 'members.snapshot'),
  },
  {
    machine: countingLost(machine),
    roster: driverRoster(identity, () => undefined),
    verify: verifyByPeerId(),
    transport: (events, gate) => {
      const { cluster, address } = identity;
      transport = new Transport(
        { nodeKey: key, cluster, address, port: PORT, chain: presentedChain(identity) },
        { gate, events },
      );
      return transport;
    },
    onNote: () => undefined,
  },
);

driver.onChange((change) => {
  if (change.kind !== 'changed') return;
  const { record, state } = change.member;
  say({ kind: 'saw', name: record.name, state, tag: record.tags['sample'] });
});

const attacker = new Attacker(key, {
  peers: () => driver.peers(),
  records: () => driver.view.members.map(({ record }) => record),
  send: (peer, bytes) => transport?.send(peer, bytes) ?? false,
  publish: (bytes) => transport?.publish(bytes),
});

async function obey(command: Command): Promise<void> {
  switch (command.kind) {
    case 'tag':
      return driver.local({ ...facts, tags: { sample: command.value } });
    case 'leave':
      return driver.leave();
    case 'departed':
      return driver.departed();
    case 'goodbye':
      return driver.goodbye('restart');
    case 'flood':
      return attacker.begin(command.attack);
    case 'calm':
      return attacker.end();
    case 'figures':
      return say({
        kind: 'figures',
        links: driver.peers().length,
        linksLost,
        ...heapFigures(),
        driver: { ...driver.counters },
        transport: { ...transport?.counters },
      });
    case 'end':
      await driver.close();
      process.exit(0);
  }
}

say({ kind: 'joining' });
await driver.start();
for await (const line of createInterface({ input: process.stdin })) await obey(JSON.parse(line) as Command);
process.exit(0);
