import { createPrivateKey, type KeyObject, type X509Certificate } from 'node:crypto';
import { certificatesOf } from '../../acme/certificate.ts';
import type { Finding } from '../contract.ts';

export interface Fitting {
  /** PEM, leaf first. */
  readonly chain: string;
  /** PEM of the key that the certificate was ordered for. */
  readonly key: string;
  readonly names: readonly string[];
  readonly nowMs: number;
}

/**
 * Checks a chain before it is served: it belongs to the key, has exactly the names, is valid now, and each certificate
 * is signed by the next. Pure.
 *
 * @returns the leaf, or the mismatch: the former certificate stays in use
 */
export function fittingLeaf({ chain, key, names, nowMs }: Fitting): X509Certificate | Finding {
  const certificates = parsed(() => certificatesOf(chain));
  const [leaf] = certificates ?? [];
  if (certificates === undefined || leaf === undefined) return mismatch('cannot be read');
  const privateKey = parsed(() => createPrivateKey(key));
  if (privateKey === undefined || !belongs(leaf, privateKey))
    return mismatch('belongs to another key than the ordered one');
  const present = namesOf(leaf);
  const missing = names.filter((name) => !present.includes(name));
  if (missing.length > 0) return mismatch(`does not have the name ${missing.join(', ')}`);
  const foreign = present.filter((name) => !names.includes(name));
  if (foreign.length > 0) return mismatch(`has a name that was not ordered: ${foreign[0]?.slice(0, 253)}`);
  const [fromMs, endMs] = [leaf.validFromDate.getTime(), leaf.validToDate.getTime()];
  if (nowMs < fromMs || nowMs >= endMs) return outOfTime(fromMs, endMs, nowMs);
  const broken = certificates.findIndex((each, at) => {
    const issuer = certificates[at + 1];
    return issuer !== undefined && parsed(() => each.verify(issuer.publicKey)) !== true;
  });
  return broken === -1 ? leaf : mismatch(`has a chain whose certificate ${broken + 1} the next did not sign`);
}

/** DNS names in lower case. Other names (an address, a mail) were never ordered, and stay as they are. */
function namesOf({ subjectAltName }: Pick<X509Certificate, 'subjectAltName'>): string[] {
  return (subjectAltName ?? '')
    .split(', ')
    .filter((each) => each !== '')
    .map((each) => each.replace(/^DNS:/, '').toLowerCase());
}

/** Why a leaf may not be served. */
export function isMisfit(judged: X509Certificate | Finding): judged is Finding {
  return 'code' in judged;
}

function belongs(leaf: X509Certificate, key: KeyObject): boolean {
  return parsed(() => leaf.checkPrivateKey(key)) === true;
}

function outOfTime(fromMs: number, endMs: number, nowMs: number): Finding {
  const said = (ms: number): string => new Date(ms).toISOString().slice(0, 16);
  return mismatch(
    `is valid from ${said(fromMs)} to ${said(endMs)}, and this host's clock says ${said(nowMs)} (all UTC)`,
    'check the clock of this host: timedatectl; it is ordered again',
  );
}

function mismatch(
  what: string,
  next = 'wait: it is ordered again; if this repeats, check which CA answers at certificates.directory',
): Finding {
  const message = `the certificate from the CA ${what}; the former certificate stays in use`;
  return { code: 'certificate-mismatch', message, next };
}

function parsed<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}
