import type { TxtRecord } from '../../host/txt-records.ts';

/**
 * The public certificate of all app nodes, and everything for its next one. It has private keys: only app nodes get it,
 * and no part of it goes into a record, a log or an argument.
 */
export interface SiteBundle {
  /** Rises with each change by the node that orders. */
  readonly generation: number;
  readonly account?: SiteAccount | undefined;
  readonly current?: SiteCertificate | undefined;
  readonly next?: SiteOrder | undefined;
  /**
   * When the current certificate is renewed. Chosen at random once, and valid only for the certificate that it names.
   */
  readonly renewal?: { readonly fingerprint: string; readonly atMs: number } | undefined;
  /** No call of the CA before this time, as the CA requested. */
  readonly notBeforeMs: number;
  /**
   * An operator requested an order. Valid only for the certificate that it names; without a name, only while there is
   * none.
   */
  readonly asked?: OperatorRequest | undefined;
  /** Certificates whose key others have or may have: each is replaced and revoked at the CA. */
  readonly exposed?: readonly ExposedCertificate[] | undefined;
  /**
   * The results of the last orders. They are part of the bundle, so that no restart and no takeover forgets a limit.
   */
  readonly recent: readonly OrderOutcome[];
  /** Peer ids of removed app nodes: none of them has these keys. */
  readonly without: readonly string[];
}

export interface SiteAccount {
  /** Directory of the CA that has it. */
  readonly directory?: string | undefined;
  /** PEM, made before the CA sees it. */
  readonly key: string;
  /** PEM: the next key of the account, since a removed app node has the present one. The CA may already know it. */
  readonly nextKey?: string | undefined;
  /** Undefined until the CA has assigned it. */
  readonly url?: string | undefined;
}

export interface SiteCertificate {
  /** Sorted. */
  readonly names: readonly string[];
  readonly profile?: string | undefined;
  readonly key: string;
  readonly chain: string;
  /** SHA-256 of the leaf, in hex. */
  readonly fingerprint: string;
  /** Directory of the CA that signed it. */
  readonly directory?: string | undefined;
  /** Start of validity, later than that of the replaced certificate: so the newer one wins. */
  readonly fromMs: number;
  readonly endMs: number;
  readonly revoked: boolean;
}

export interface ExposedCertificate {
  readonly fingerprint: string;
  /** PEM. */
  readonly leaf: string;
  readonly directory?: string | undefined;
  readonly endMs: number;
  /** An operator revokes it, for this reason (RFC 5280 section 5.3.1); undefined: a removed app node has its key. */
  readonly reason?: number | undefined;
  /** It is revoked before another one is there. */
  readonly now?: boolean | undefined;
}

interface OperatorRequest {
  readonly fingerprint?: string | undefined;
  readonly atMs: number;
  /** Ignores our own limits for one signature, never the CA's. */
  readonly force: boolean;
}

export interface SiteOrder {
  readonly names: readonly string[];
  readonly profile?: string | undefined;
  /** PEM of the certificate's key, made before the order. */
  readonly key: string;
  readonly url?: string | undefined;
  readonly sinceMs: number;
  /**
   * What the CA must find in DNS (challenge dns-01), at `_acme-challenge.NAME`, which a name and its wildcard share;
   * undefined: not asked of the CA yet.
   */
  readonly answers?: readonly TxtRecord[] | undefined;
}

export interface OrderOutcome {
  readonly atMs: number;
  /** The names of the order, sorted, with a blank between them. */
  readonly names: string;
  /**
   * `finalized`: the CA was asked to sign, and counts it. `issued`: what it signed is served. `refused`: a check of a
   * name failed. `failed`: anything else.
   */
  readonly outcome: 'finalized' | 'issued' | 'refused' | 'failed';
}

export interface CertificatesDesired {
  /** Sorted. */
  readonly names: readonly string[];
  readonly profile?: string | undefined;
  /** Profile of the CA; undefined: any. */
  readonly directory?: string | undefined;
  /** Whether this node talks to the CA; all others use its results. */
  readonly orders: boolean;
  /** How the CA checks the names: it connects to port 80, or asks for TXT records. */
  readonly challenge: 'http-01' | 'dns-01';
  /** Which node orders, for people. */
  readonly why: string;
  readonly bundle: SiteBundle;
  /** Peer ids of app nodes that were removed. */
  readonly removed: readonly string[];
  readonly nowMs: number;
}

/** The bundle before the first order. */
export const EMPTY_BUNDLE: SiteBundle = {
  generation: 0,
  notBeforeMs: 0,
  recent: [],
  without: [],
};
