import type { PeerId } from '../membership/types.ts';
import type { Hello } from '../wire/handshake.ts';

/** What this side knows of a peer when that peer's hello arrives. */
export interface Standing {
  readonly self: PeerId;
  readonly peer: PeerId;
  /** This transport's own instance. */
  readonly instance: string;
  /** The link with this peer that is up or whose admission we have sent, if any. */
  readonly link:
    | { readonly instance: string; readonly dialledBy: 'self' | 'peer'; readonly dial: number }
    | undefined;
  /** Number of our own dial whose hello is sent and not answered, if any. */
  readonly ownDial: number | undefined;
}

/**
 * What to do with a dial by a peer:
 * - `take`: no other link; this becomes the link.
 * - `swap`: two dials crossed; this becomes the link in place of ours, and nobody need notice.
 * - `renew`: the link we have is gone on the other side; it ended, then this one begins.
 * - `duplicate`: two dials crossed, or this one is old; ours is the link.
 */
type Decision = 'take' | 'swap' | 'renew' | 'duplicate';

/**
 * Both sides must come to the same link without another exchange. `dial` counts dials per pair and instance, and `seen`
 * says which of our dials the peer had received when it dialled: if it had received ours and dials nevertheless, it
 * has lost that link; had it not, the two crossed on the way, and the dial of the smaller PeerId counts.
 */
export function decide(
  standing: Standing,
  hello: Pick<Hello, 'instance' | 'dial' | 'seen' | 'seenInstance'>,
): Decision {
  const { self, peer, instance, link, ownDial } = standing;
  const seen = hello.seenInstance === instance ? hello.seen : 0;
  const peerWins = peer < self;
  if (link !== undefined) {
    if (link.instance !== hello.instance) return 'renew';
    if (link.dialledBy === 'peer') return hello.dial > link.dial ? 'renew' : 'duplicate';
    if (seen >= link.dial) return 'renew';
    return peerWins ? 'swap' : 'duplicate';
  }
  if (ownDial === undefined || seen >= ownDial) return 'take';
  return peerWins ? 'take' : 'duplicate';
}
