import { X509Certificate } from 'node:crypto';
import type { Finding } from '../contract.ts';
import type { CertificatesDesired, SiteBundle, SiteCertificate } from './desired.ts';
import { setOf } from './limits.ts';
import { heldNow, orderReason, renewalMs, WORDS } from './plan.ts';
import { renewAtMs } from './renewal.ts';
import type { CertificateFacts, ShownCertificate } from './shape.ts';
import { visitedName } from './shown.ts';

const LATE_MS = 3_600_000;

interface FactsInput {
  readonly desired: CertificatesDesired;
  readonly directory: string;
  readonly waits: string | undefined;
  readonly problem: Finding | undefined;
  readonly failingSinceMs: number | undefined;
}

/** Pure. */
export function factsOf({
  desired,
  directory,
  waits,
  problem,
  failingSinceMs,
}: FactsInput): CertificateFacts {
  const { names, profile, why, bundle, challenge } = desired;
  const { current, next } = bundle;
  return {
    ...{ names, directory, profile, problem, challenge },
    url: `https://${visitedName(names)}/`,
    orderer: why,
    current: current && shown(current),
    next: next === undefined ? nextOrder(desired) : undefined,
    order: next && { since: iso(next.sinceMs), waits },
    failingSince: failingSinceMs === undefined ? undefined : iso(failingSinceMs),
  };
}

function shown({ names, chain, fingerprint, fromMs, endMs, revoked }: SiteCertificate): ShownCertificate {
  const leaf = new X509Certificate(chain);
  return {
    ...{ names, revoked },
    issuer: issuerOf(leaf),
    serial: leaf.serialNumber.toLowerCase(),
    sha256: fingerprint,
    from: iso(fromMs),
    ends: iso(endMs),
  };
}

/** E.g. `R11, Let's Encrypt`. The CA's name goes to a terminal: printable, on one line. */
function issuerOf({ issuer }: Pick<X509Certificate, 'issuer'>): string {
  const parts = new Map(
    issuer.split('\n').map((line) => {
      const at = line.indexOf('=');
      return [line.slice(0, at), line.slice(at + 1)] as const;
    }),
  );
  const said = [parts.get('CN'), parts.get('O')].filter((each) => each !== undefined).join(', ');
  return said.replaceAll(/[\p{C}\p{Z}]+/gu, ' ').slice(0, 200);
}

function nextOrder(desired: CertificatesDesired): CertificateFacts['next'] {
  const { bundle, nowMs } = desired;
  const reason = orderReason(desired);
  if (reason !== undefined) {
    const held = heldNow(desired);
    return { at: iso(held?.untilMs ?? nowMs), why: WORDS[reason], held: held?.code };
  }
  const { current } = bundle;
  if (current === undefined) return undefined;
  const atMs = renewalMs(bundle, current);
  const own = atMs === renewAtMs(current, undefined, 0);
  return { at: iso(atMs), why: own ? 'most of its lifetime is over then' : 'the CA set the time' };
}

/**
 * Since when orders fail, as all app nodes know it: the first failure after the last success, or the time of a missed
 * renewal.
 */
export function failingSinceMs(desired: CertificatesDesired): number | undefined {
  const { bundle, names, nowMs } = desired;
  const reason = orderReason(desired);
  if (reason === undefined) return undefined;
  const own = bundle.recent.filter((each) => each.names === setOf(names));
  const issuedMs = Math.max(0, ...own.filter(({ outcome }) => outcome === 'issued').map(({ atMs }) => atMs));
  const failed = own.filter(({ outcome, atMs }) => /^(failed|refused)$/.test(outcome) && atMs > issuedMs);
  const times = [
    ...failed.map(({ atMs }) => atMs),
    ...(reason === 'renewal' ? overdueMs(bundle, nowMs) : []),
  ];
  return times.length === 0 ? undefined : Math.min(...times);
}

/** A successful order takes a minute. */
function overdueMs(bundle: SiteBundle, nowMs: number): number[] {
  const atMs = bundle.current === undefined ? nowMs : renewalMs(bundle, bundle.current);
  return nowMs - atMs > LATE_MS ? [atMs] : [];
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
