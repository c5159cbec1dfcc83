import type { EffectiveMember, EffectiveView } from './effective.ts';

/** In the record of an app node that can order the site's certificate: its settings for that are complete. */
export const ORDERS_TAG = 'orders';
export const ORDERS_READY = 'ready';

export interface Orderer {
  /** Whether this node speaks with the CA. */
  readonly orders: boolean;
  /** Who does, for people. */
  readonly why: string;
}

/**
 * One node orders, without a vote: the first in order of admission that is heard and can. Two do so only while
 * each does not hear the other; that costs a certificate, and no visitor.
 */
export function ordererOf(view: EffectiveView): Orderer {
  const first = view.members.find(canOrder);
  if (!view.synced) return { orders: false, why: 'waiting for the first peer' };
  if (first === undefined) return { orders: false, why: 'no app node can order' };
  return first.self
    ? { orders: true, why: 'this node orders' }
    : { orders: false, why: `${first.record.name} orders` };
}

/** A suspicion and a restart are over within seconds: nobody takes over for so short a time. */
function canOrder({ record, state }: EffectiveMember): boolean {
  const heard = state === 'alive' || state === 'suspect';
  const stops = record.goodbye?.kind === 'stop' || record.goodbye?.kind === 'shutdown';
  return (
    record.role === 'app' &&
    heard &&
    !stops &&
    !record.maintenance &&
    record.tags[ORDERS_TAG] === ORDERS_READY
  );
}
