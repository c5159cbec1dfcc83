import type { KeyObject } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { peerIdOfKey, signWith } from '../../src/daemon/identity/keys/node-key.ts';
import type {
  NodeRecord,
  PeerId,
  SignedAccusation,
  SignedRecord,
} from '../../src/daemon/membership/types.ts';
import { MAX_RECORD_BYTES } from '../../src/daemon/wire/limits.ts';
import { encodeMessage } from '../../src/daemon/wire/message.ts';
import { RECORD_DOMAIN, signer } from '../../src/daemon/wire/record.ts';
import type { Attack } from './member-words.ts';

export interface Reach {
  readonly peers: () => readonly PeerId[];
  /** All members as this one knows them, itself included. */
  readonly records: () => readonly NodeRecord[];
  /** False: there is no room in the queue. */
  readonly send: (peer: PeerId, bytes: Uint8Array) => boolean;
  readonly publish: (bytes: Uint8Array) => void;
}

/** Messages made ahead, so that the attacker's own signatures do not bound its rate. */
const READY = 24;
const ACCUSATIONS = 256;
const OWN_RECORDS = 180;
/** Publications in one turn: 500 a second, a hundred times what a whole cluster may gossip. */
const PUBLICATIONS = 1;
const TURN_MS = 2;

/** Sends what a member may sign, to every member that it is linked with, as fast as their sockets take it. */
export class Attacker {
  readonly #sign: (bytes: Uint8Array) => Uint8Array;
  readonly #self: PeerId;
  readonly #reach: Reach;
  #sequence = 1_000_000;
  #attack: Attack | undefined;

  constructor(key: KeyObject, reach: Reach) {
    this.#sign = signWith(key);
    this.#self = peerIdOfKey(key);
    this.#reach = reach;
  }

  begin(attack: Attack): void {
    const running = this.#attack !== undefined;
    this.#attack = attack;
    if (!running) void this.#run();
  }

  end(): void {
    this.#attack = undefined;
  }

  async #run(): Promise<void> {
    let ready: Uint8Array[] = [];
    let made: Attack | undefined;
    for (let turn = 0; this.#attack !== undefined; turn += 1) {
      const attack = this.#attack;
      if (attack !== made) ready = Array.from({ length: READY }, () => this.#messages(attack)).flat();
      made = attack;
      // Those that must be new to count are made again all the time.
      const fresh = attack === 'replay' ? [] : this.#messages(attack);
      this.#send(attack, fresh, ready, turn);
      await pause(TURN_MS);
    }
  }

  #send(attack: Attack, fresh: readonly Uint8Array[], ready: readonly Uint8Array[], turn: number): void {
    if (attack === 'gossip' || attack === 'mixed')
      for (const bytes of fresh.slice(0, PUBLICATIONS)) this.#reach.publish(bytes);
    if (attack === 'gossip') return;
    for (const peer of this.#reach.peers()) {
      let room = fresh.every((bytes) => this.#reach.send(peer, bytes));
      for (let at = turn; room && at < turn + ready.length; at += 1)
        room = this.#reach.send(peer, ready[at % ready.length] ?? new Uint8Array(0));
    }
  }

  #messages(attack: Attack): Uint8Array[] {
    switch (attack) {
      case 'accusations':
        return encodeMessage({ kind: 'batch', records: [], accusations: this.#accusations(ACCUSATIONS) });
      case 'records':
      case 'replay':
        return encodeMessage({ kind: 'batch', records: this.#records(OWN_RECORDS), accusations: [] });
      case 'large':
        return Array.from({ length: 8 }, () => this.#large()).flatMap((record) =>
          encodeMessage({ kind: 'batch', records: [record], accusations: [] }),
        );
      case 'gossip':
        return encodeMessage({ kind: 'batch', records: this.#records(1), accusations: [] });
      case 'mixed':
        return [
          ...encodeMessage({ kind: 'batch', records: this.#records(1), accusations: this.#accusations(32) }),
          ...encodeMessage({ kind: 'digest', entries: [], wantsReply: true, hash: '0123456789abcdef' }),
          ...encodeMessage({
            kind: 'pingRequest',
            nonce: this.#sequence,
            target: this.#victims()[0]?.peerId ?? '',
          }),
          ...encodeMessage({
            kind: 'delta',
            records: [],
            accusations: [],
            wants: this.#victims().map(({ peerId }) => peerId),
            final: false,
          }),
          ...encodeMessage({ kind: 'ping', nonce: this.#sequence }),
        ];
    }
  }

  #own(): NodeRecord {
    const own = this.#reach.records().find(({ peerId }) => peerId === this.#self);
    if (own === undefined) throw new Error('a member knows itself');
    this.#sequence += 1;
    return { ...own, sequence: this.#sequence, tags: { attack: String(this.#sequence) } };
  }

  #records(count: number): SignedRecord[] {
    return Array.from({ length: count }, () => signer(this.#sign).record(this.#own()));
  }

  /** As long as a record may be, by a field of a version that nobody knows. */
  #large(): SignedRecord {
    const { record, payload } = signer(this.#sign).record(this.#own());
    const room = MAX_RECORD_BYTES - payload.byteLength - 8;
    // Field 1000, length-delimited: its tag (1000 * 8 + 2) and its length as varints of two bytes.
    const head = [0xc2, 0x3e, (room & 0x7f) | 0x80, room >> 7];
    const longer = Buffer.concat([payload, Uint8Array.from(head), new Uint8Array(room)]);
    const signature = this.#sign(Buffer.concat([Buffer.from(RECORD_DOMAIN, 'latin1'), longer]));
    return { record, payload: longer, signature };
  }

  /** The first ones of the present lives, the rest of lives to come. */
  #accusations(count: number): SignedAccusation[] {
    const victims = this.#victims();
    const accuser = this.#self;
    return Array.from({ length: count }, (_, at) => {
      const victim = victims[at % victims.length];
      if (victim === undefined) throw new Error('nobody is there to be accused');
      const incarnation = victim.incarnation + Math.floor(at / victims.length);
      return signer(this.#sign).accusation({
        subject: victim.peerId,
        accuser,
        incarnation,
        evidence: 'closed',
      });
    });
  }

  #victims(): NodeRecord[] {
    return this.#reach.records().filter(({ peerId }) => peerId !== this.#self);
  }
}
