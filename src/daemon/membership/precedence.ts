import type { MemberState, NodeRecord } from './types.ts';

/**
 * Which statement about a member is valid: decided only here. After SWIM (Das, Gupta, Motivala 2002, section 4.2),
 * with three differences: only the member itself can say alive, leaving or left (its records are signed); others can
 * only accuse; and dead is a verdict that each member reaches from accusations (suspicion.ts), not a claim that
 * travels.
 */
export interface Known {
  readonly state: MemberState;
  readonly incarnation: number;
  readonly sequence: number;
  readonly startId: string;
  /** The window of a goodbye is open: the verdict waits, and the member is not suspect meanwhile. */
  readonly restarting: boolean;
}

export type Claim =
  | {
      readonly kind: 'record';
      readonly incarnation: number;
      readonly sequence: number;
      readonly startId: string;
      readonly status: NodeRecord['status'];
      readonly goodbye: boolean;
    }
  | { readonly kind: 'accusation'; readonly incarnation: number }
  | { readonly kind: 'verdict'; readonly incarnation: number };

export interface Outcome {
  /** False: the claim is stale and changes nothing. */
  readonly accepted: boolean;
  readonly state: MemberState;
  /** The restart annotation afterwards: a record sets it, an accusation leaves it. */
  readonly window: 'keep' | 'open' | 'close';
  /** Accusations collected so far are void: they named an earlier incarnation, or the member has left. */
  readonly absolved: boolean;
}

export function decide(known: Known, claim: Claim): Outcome {
  switch (claim.kind) {
    case 'record': {
      if (claim.incarnation > known.incarnation) return fresh(claim);
      if (claim.incarnation < known.incarnation) return stale(known);
      return isLater(known, claim) ? sameLife(known, claim) : stale(known);
    }
    case 'accusation':
      return claim.incarnation === known.incarnation ? accuse(known) : stale(known);
    case 'verdict':
      return claim.incarnation === known.incarnation ? condemn(known) : stale(known);
  }
}

type RecordClaim = Extract<Claim, { kind: 'record' }>;

/** A higher incarnation wins over everything: it answers accusations, and a member returns with it. */
function fresh(claim: RecordClaim): Outcome {
  return {
    accepted: true,
    state: claim.status,
    window: claim.status === 'alive' && claim.goodbye ? 'open' : 'close',
    absolved: true,
  };
}

/** Equal sequences with different start ids come from two holders of one key: any common rule is sufficient. */
function isLater(known: Known, claim: RecordClaim): boolean {
  if (claim.sequence !== known.sequence) return claim.sequence > known.sequence;
  return claim.startId > known.startId;
}

/** Within one incarnation a member only gets nearer to its end. */
function sameLife(known: Known, claim: RecordClaim): Outcome {
  const window = claim.status === 'alive' && claim.goodbye ? 'open' : 'close';
  switch (known.state) {
    case 'alive':
      return { accepted: true, state: claim.status, window, absolved: claim.status === 'left' };
    case 'suspect':
      // A later record of the same incarnation may be older than the accusation, so it refutes nothing.
      return claim.status === 'alive'
        ? { accepted: true, state: 'suspect', window, absolved: false }
        : { accepted: true, state: claim.status, window, absolved: claim.status === 'left' };
    case 'leaving':
      return claim.status === 'alive'
        ? stale(known)
        : { accepted: true, state: claim.status, window: 'close', absolved: claim.status === 'left' };
    case 'dead':
      // Its last record may arrive after the verdict: then it left. Anything else needs a higher incarnation.
      return claim.status === 'left'
        ? { accepted: true, state: 'left', window: 'close', absolved: true }
        : stale(known);
    case 'left':
      return stale(known);
  }
}

function accuse(known: Known): Outcome {
  switch (known.state) {
    case 'alive':
    case 'suspect':
      return {
        accepted: true,
        state: known.restarting ? known.state : 'suspect',
        window: 'keep',
        absolved: false,
      };
    case 'leaving':
      // Still leaving until the verdict: a member that is handing over its work must not rank worse than suspect.
      return { accepted: true, state: 'leaving', window: 'keep', absolved: false };
    case 'dead':
    case 'left':
      return stale(known);
  }
}

function condemn(known: Known): Outcome {
  if (known.restarting) return stale(known);
  switch (known.state) {
    case 'alive':
    case 'suspect':
    case 'leaving':
      return { accepted: true, state: 'dead', window: 'close', absolved: false };
    case 'dead':
    case 'left':
      return stale(known);
  }
}

function stale(known: Known): Outcome {
  return { accepted: false, state: known.state, window: 'keep', absolved: false };
}
