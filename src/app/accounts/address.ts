import { domainToASCII } from 'node:url';

/** RFC 5321 section 4.5.3.1: 64 octets before the @, 255 after it, 254 in all (RFC 3696 erratum 1690). */
const MAX_BYTES = 254;
const MAX_LOCAL_BYTES = 64;
/** Printable characters without space, quotes, brackets and separators: what mail servers really deliver to. */
const LOCAL = /^[^\s"(),:;<>@[\\\]\p{C}]+$/u;
const DOMAIN = /^(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])$/;

export interface MailAddress {
  /** Where mail goes: as the person wrote it, the domain in ASCII. */
  readonly deliver: string;
  /**
   * What makes it the same account. Upper and lower case are one address, since no provider tells them apart and
   * people type both; `+tag` is not cut off, since it is a mailbox of its own at many servers.
   */
  readonly identity: string;
}

/** @returns undefined where the text is no address that this product sends mail to */
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
  // A leading hyphen would be an option to sendmail.
  if (local.startsWith('-')) return undefined;
  return { deliver, identity: identityOf(deliver) };
}

/** The identity of an address as {@link parseAddress} delivers to it, and as an account keeps it. */
export function identityOf(deliver: string): string {
  const at = deliver.lastIndexOf('@');
  return `${deliver.slice(0, at).normalize('NFKC').toLowerCase()}@${deliver.slice(at + 1)}`;
}
