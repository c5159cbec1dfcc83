import { domainToASCII } from 'node:url';

/** RFC 5321 section 4.5.3.1: 64 octets before the @, 255 after it, 254 in all (RFC 3696 erratum 1690). */
const MAX_BYTES = 254;
const MAX_LOCAL_BYTES = 64;
/** Printable characters without space, quotes, brackets and separators: mail servers deliver to these. */
const LOCAL = /^[^\s"(),:;<>@[\\\]\p{C}]+$/u;
const DOMAIN = /^(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])$/;

export interface MailAddress {
  /** The address for mail: as the person wrote it, with the domain in ASCII. */
  readonly deliver: string;
  /**
   * Equal identities are one account. Upper and lower case are one address, since no provider distinguishes them and
   * people type both; `+tag` stays, since many servers have a separate mailbox for it.
   */
  readonly identity: string;
}

/** @returns undefined if this product sends no mail to such an address */
export function parseAddress(text: string): MailAddress | undefined {
  const trimmed = text.trim().normalize('NFC');
  const at = trimmed.lastIndexOf('@');
  const local = trimmed.slice(0, at);
  const domain = domainToASCII(trimmed.slice(at + 1)).toLowerCase();
  if (at < 1 || !LOCAL.test(local) || local.startsWith('.') || local.endsWith('.') || local.includes('..'))
    return undefined;
  if (!DOMAIN.test(domain)) return undefined;
  const deliver = `${local}@${domain}`;
  if (Buffer.byteLength(local) > MAX_LOCAL_BYTES || Buffer.byteLength(deliver) > MAX_BYTES) return undefined;
  // sendmail would read a leading hyphen as an option.
  if (local.startsWith('-')) return undefined;
  return { deliver, identity: identityOf(deliver) };
}

/** The identity of an address that {@link parseAddress} returned or an account has. */
export function identityOf(deliver: string): string {
  const at = deliver.lastIndexOf('@');
  return `${deliver.slice(0, at).normalize('NFKC').toLowerCase()}@${deliver.slice(at + 1)}`;
}
