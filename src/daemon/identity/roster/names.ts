import type { Roster } from './roster.ts';
import type { MembershipView } from '../../membership/types.ts';

/** The machine uses PeerIds, programs use hosts; people know names (HOST/ROLE). */
export class Names {
  readonly #roster: Pick<Roster, 'get' | 'members' | 'revocations'>;
  readonly #view: () => MembershipView;

  constructor(roster: Pick<Roster, 'get' | 'members' | 'revocations'>, view: () => MembershipView) {
    this.#roster = roster;
    this.#view = view;
  }

  /** Also of removed members, as long as they are known; otherwise the PeerId itself. */
  of(peer: string): string {
    return (
      this.#roster.get(peer)?.name ??
      this.#view().members.find((each) => each.record.peerId === peer)?.record.name ??
      this.#roster.revocations().find((each) => each.peerId === peer)?.name ??
      peer
    );
  }

  /** The authority that signed a removal. */
  removerOf(peer: string): string {
    const revocation = this.#roster.revocations().find((each) => each.peerId === peer);
    return revocation === undefined ? 'a removed authority' : this.of(revocation.by.peerId);
  }

  /** The same text with a name for each PeerId. */
  named(text: string): string {
    return text.replaceAll(/\b12D3KooW\w{44}\b/g, (peer) => this.of(peer));
  }
}
