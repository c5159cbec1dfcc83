import type { CertificatesDesired } from '../plugins/certificates/desired.ts';
import { dnsWriter } from './dns.ts';
import type { EffectiveMember, EffectiveView } from './effective.ts';

/** Tag of an app node that can order the site's certificate: its settings for that are complete. */
export const ORDERS_TAG = 'orders';
export const ORDERS_READY = 'ready';

/** Tag of an app node: which bundle it has. */
export const SITE_TAG = 'site';

interface Orderer {
  /** Whether this node talks to the CA. */
  readonly orders: boolean;
  /** The name of the node that does, for people. */
  readonly why: string;
}

/**
 * One node orders, without a vote: the first in order of admission that is reachable and able. Two nodes order only
 * while they cannot reach each other; that costs one certificate, and no visitor.
 */
export function ordererOf(view: EffectiveView): Orderer {
  const first = view.members.find(canOrder);
  if (!view.synced) return { orders: false, why: 'waiting for the first peer' };
  if (first === undefined) return { orders: false, why: 'no app node can order' };
  return first.self
    ? { orders: true, why: 'this node orders' }
    : { orders: false, why: `${first.record.name} orders` };
}

/** A suspicion or a restart ends within seconds: no other node takes over for so short a time. */
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

interface CertificateConfig {
  readonly names: readonly string[];
  readonly profile: string | undefined;
  readonly challenge: CertificatesDesired['challenge'];
  /** The zone of `[dns]`, and its server if there is one; undefined: without `[dns]`. */
  readonly dns: { readonly zone: string; readonly server: string | undefined } | undefined;
  readonly directory: string;
  readonly contact: readonly string[];
  readonly termsAgreed: boolean;
  readonly caFile: string | undefined;
  readonly externalAccount: { readonly kid: string; readonly keyFile: string } | undefined;
  readonly httpPort: number;
  readonly httpsPort: number;
}

/** Reachable app nodes with the bundle that they report; undefined: they keep none. */
export function sitePeers({ members }: EffectiveView) {
  return members
    .filter(({ record, self, state }) => record.role === 'app' && !self && state === 'alive')
    .map(({ record: { peerId, name, tags } }) => ({
      ...{ peerId, name },
      word: tags[ORDERS_TAG] === ORDERS_READY ? (tags[SITE_TAG] ?? '') : undefined,
    }));
}

/** The desired state of the certificates plugin, as far as the members decide it. */
export function certificatesOf(view: EffectiveView, removed: readonly string[], config: CertificateConfig) {
  const { httpPort, httpsPort, names, profile, challenge, dns, ...settings } = config;
  const edges = view.members
    .filter(({ record, state }) => record.role === 'app' && state === 'alive')
    .map(({ record: { name, address } }) => ({ name, address, port: httpPort, tlsPort: httpsPort }));
  const wanted: Omit<CertificatesDesired, 'bundle' | 'nowMs' | 'directory'> = {
    ...ordererOf(view),
    names: [...new Set(names)].sort(),
    ...{ profile, challenge },
    removed,
  };
  return { ...settings, ...wanted, edges, dns: dns && { ...dns, writer: dnsWriter(view) } };
}
