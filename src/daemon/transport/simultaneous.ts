import type { PeerId } from '../membership/types.ts';
import type { Hello } from '../wire/handshake.ts';

/** What this node knows of a peer when the peer's hello arrives. */
export interface Standing {
  readonly self: PeerId;
  readonly peer: PeerId;
  /** The instance of this transport. */
  readonly instance: string;
  /** The link with this peer that is up, or whose admission was sent, if any. */
  readonly link:
    | { readonly instance: string; readonly dialledBy: 'self' | 'peer'; readonly dial: number }
    | undefined;
  /** Number of this node's dial whose hello is sent but not answered, if any. */
  readonly ownDial: number | undefined;
}

/**
 * What to do with a dial by a peer:
 * - `take`: no other link; this becomes the link.
 * - `swap`: two dials crossed; this one replaces our link, and nothing is reported.
 * - `renew`: our link is already gone on the other side: it ends, then this one begins.
 * - `duplicate`: two dials crossed, or this one is old; our link stays.
 */
type Decision = 'take' | 'swap' | 'renew' | 'duplicate';

/**
 * Both sides must choose the same link without another exchange. `dial` counts dials per pair and instance, and `seen`
 * is the last of our dials that the peer had received when it dialled. If it had received ours and dials nevertheless,
 * it has lost that link; if not, the two crossed, and the dial of the smaller PeerId wins.
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
