import type { Finding } from '../contract.ts';

/** The facts of the site's certificate for people. No key. Times are ISO 8601, UTC. */
export interface CertificateFacts {
  readonly names: readonly string[];
  /** Address of the site for visitors. */
  readonly url: string;
  readonly challenge: 'http-01' | 'dns-01';
  /** Of the CA. */
  readonly directory: string;
  readonly profile?: string | undefined;
  /** Which node orders, for people. */
  readonly orderer: string;
  readonly current?: ShownCertificate | undefined;
  /** When the next one is ordered, and why; `held`: a limit delays it. Undefined: an order is under way. */
  readonly next?:
    | { readonly at: string; readonly why: string; readonly held?: string | undefined }
    | undefined;
  /** The order under way; `waits`: what it waits for. */
  readonly order?: { readonly since: string; readonly waits?: string | undefined } | undefined;
  readonly problem?: Finding | undefined;
  /** Since when orders fail. */
  readonly failingSince?: string | undefined;
}

export interface ShownCertificate {
  readonly names: readonly string[];
  readonly issuer: string;
  readonly serial: string;
  readonly sha256: string;
  readonly from: string;
  readonly ends: string;
  readonly revoked: boolean;
}

/** The answer to `bornemisza certificate show`. */
export interface CertificateShown extends CertificateFacts {
  readonly edges: readonly Served[];
}

/** What the edge of one reachable app node serves to a visitor now. */
export interface Served {
  readonly name: string;
  /** SHA-256 of the certificate, in hex; undefined: no answer. */
  readonly sha256?: string | undefined;
}
