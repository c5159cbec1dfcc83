import type { Roster } from './roster.ts';
import type { MembershipView } from '../../membership/types.ts';

/** The machine speaks of PeerIds, programs speak of hosts; people know names (HOST/ROLE). */
export class Names {
  readonly #roster: Pick<Roster, 'get' | 'members' | 'revocations'>;
  readonly #view: () => MembershipView;

  constructor(roster: Pick<Roster, 'get' | 'members' | 'revocations'>, view: () => MembershipView) {
    this.#roster = roster;
    this.#view = view;
  }

  /** Of those who are out as well, as long as anybody remembers them; else the PeerId itself. */
  of(peer: string): string {
    return (
      this.#roster.get(peer)?.name ??
      this.#view().members.find((each) => each.record.peerId === peer)?.record.name ??
      this.#roster.revocations().find((each) => each.peerId === peer)?.name ??
      peer
    );
  }

  /** Who signed that a member is out. */
  removerOf(peer: string): string {
    const revocation = this.#roster.revocations().find((each) => each.peerId === peer);
    return revocation === undefined ? 'an authority that was removed' : this.of(revocation.by.peerId);
  }

  /** The same text with a name for each PeerId. */
  named(text: string): string {
    return text.replaceAll(/\b12D3KooW\w{44}\b/g, (peer) => this.of(peer));
  }
}
