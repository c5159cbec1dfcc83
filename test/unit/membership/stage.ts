import { createMembership } from '../../../src/daemon/membership/machine.ts';
import { presets } from '../../../src/daemon/membership/preset.ts';
import type {
  Admitted,
  Effect,
  Event,
  Evidence,
  Member,
  Message,
  NodeRecord,
  PeerId,
  SignedAccusation,
  SignedRecord,
  Signer,
  Snapshot,
} from '../../../src/daemon/membership/types.ts';

/** One machine (`a`) among peers played by the test, on a clock that the test turns. */
const nothing = new Uint8Array(0);

export const signed = (record: NodeRecord): SignedRecord => ({
  record,
  payload: nothing,
  signature: nothing,
});

export const accusation = (
  accuser: PeerId,
  subject: PeerId,
  incarnation: number,
  evidence: Evidence = 'silent',
): SignedAccusation => ({
  accusation: { accuser, subject, incarnation, evidence },
  payload: nothing,
  signature: nothing,
});

export const signer: Signer = {
  record: signed,
  accusation: (one) => ({ accusation: one, payload: nothing, signature: nothing }),
};

export function admitted(peerId: PeerId): Admitted {
  return { peerId, name: `host-${peerId}/app`, role: 'app', address: `10.0.0.${peerId.charCodeAt(0)}` };
}

export function recordOf(peerId: PeerId, over: Partial<NodeRecord> = {}): NodeRecord {
  const { name, role, address } = admitted(peerId);
  return {
    peerId,
    name,
    role,
    address,
    port: 4101,
    incarnation: 1,
    sequence: 0,
    startId: `start-${peerId}`,
    version: '0.1.0',
    protocolMin: 1,
    protocolMax: 1,
    status: 'alive',
    health: 'up',
    maintenance: false,
    services: [],
    tags: {},
    load: 0,
    settingsDigest: '0123456789abcdef',
    ...over,
  };
}

export interface StageOptions {
  readonly peers?: readonly PeerId[];
  readonly founder?: boolean;
  readonly snapshot?: Snapshot;
  readonly self?: Partial<NodeRecord>;
  /** Peers that are linked from the start, whose records are known, and who answer pings by themselves. */
  readonly linked?: boolean;
}

export class Stage {
  nowMs = 0;
  readonly machine;
  readonly effects: Effect[] = [];
  /** Peers that answer pings and indirect probes. */
  readonly answering = new Set<PeerId>();
  #timers: { readonly atMs: number; readonly event: Event }[] = [];

  constructor({
    peers = ['b', 'c', 'd'],
    founder = true,
    snapshot,
    self = {},
    linked = true,
  }: StageOptions = {}) {
    this.machine = createMembership({ self: recordOf('a', self), signer, preset: presets.lan, seed: 1 });
    const roster = ['a', ...peers].map(admitted);
    this.step({ kind: 'start', roster, snapshot, founder });
    if (!linked) return;
    for (const peer of peers) {
      this.answering.add(peer);
      this.step({ kind: 'connected', peer });
      this.hear(peer, recordOf(peer));
    }
    this.run(10);
    this.effects.length = 0;
  }

  step(event: Event): Effect[] {
    const effects = this.machine.step(event, this.nowMs);
    this.effects.push(...effects);
    for (const effect of effects) {
      if (effect.kind === 'schedule')
        this.#timers.push({
          atMs: this.nowMs + effect.afterMs,
          event: { kind: 'timer', timer: effect.timer },
        });
      if (effect.kind === 'send' && this.answering.has(effect.to)) this.#answer(effect.to, effect.message);
    }
    return effects;
  }

  #answer(peer: PeerId, message: Message): void {
    if (message.kind === 'ping')
      this.step({ kind: 'received', from: peer, message: { kind: 'ack', nonce: message.nonce } });
    if (message.kind !== 'pingRequest') return;
    const { nonce, target } = message;
    const reached = this.answering.has(target);
    this.step({ kind: 'received', from: peer, message: { kind: 'pingReport', nonce, target, reached } });
  }

  hear(from: PeerId, ...records: NodeRecord[]): Effect[] {
    return this.step({
      kind: 'received',
      from,
      message: { kind: 'batch', records: records.map(signed), accusations: [] },
      via: 'gossip',
    });
  }

  accuse(...accusations: SignedAccusation[]): Effect[] {
    const from = accusations[0]?.accusation.accuser ?? 'b';
    return this.step({
      kind: 'received',
      from,
      message: { kind: 'batch', records: [], accusations },
      via: 'gossip',
    });
  }

  /** Turns the clock, firing timers at their times. */
  run(forMs: number): void {
    const untilMs = this.nowMs + forMs;
    for (;;) {
      this.#timers.sort((one, other) => one.atMs - other.atMs);
      const next = this.#timers[0];
      if (next === undefined || next.atMs > untilMs) break;
      this.#timers.shift();
      this.nowMs = Math.max(this.nowMs, next.atMs);
      this.step(next.event);
    }
    this.nowMs = untilMs;
  }

  member(peer: PeerId): Member | undefined {
    return this.machine.view.members.find((one) => one.record.peerId === peer);
  }

  state(peer: PeerId): string {
    return this.member(peer)?.state ?? 'unknown';
  }

  get self(): NodeRecord {
    const self = this.member('a');
    if (self === undefined) throw new Error('self is missing');
    return self.record;
  }

  notes(): string[] {
    return this.effects.flatMap((effect) => (effect.kind === 'note' ? effect.code : []));
  }

  sent(to: PeerId): Message[] {
    return this.effects.flatMap((effect) =>
      effect.kind === 'send' && effect.to === to ? effect.message : [],
    );
  }

  published(): Extract<Message, { kind: 'batch' }>[] {
    return this.effects.flatMap((effect) => (effect.kind === 'publish' ? effect.message : []));
  }

  has(kind: Effect['kind'], peer?: PeerId): boolean {
    return this.effects.some(
      (effect) => effect.kind === kind && (peer === undefined || ('peer' in effect && effect.peer === peer)),
    );
  }
}
