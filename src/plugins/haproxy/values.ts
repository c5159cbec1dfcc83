import { isIPv4 } from 'node:net';
import { PluginError } from '../contract.ts';

/**
 * Every value that reaches haproxy.cfg or HAProxy's socket passes one of these. HAProxy splits on spaces, newlines and
 * semicolons and expands quotes, backslashes and `$`: values with one of them are refused, so nothing needs quoting.
 */
function matching(what: string, value: string, pattern: RegExp, allowed: string): string {
  if (!pattern.test(value)) throw refused(what, value, allowed);
  return value;
}

export function token(what: string, value: string): string {
  return matching(what, value, /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'letters, digits and . _ -, 63 at most');
}

export function dnsName(what: string, value: string): string {
  return matching(
    what,
    value,
    /^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$/,
    'a DNS name',
  );
}

export function ipv4(what: string, value: string): string {
  if (!isIPv4(value)) throw refused(what, value, 'an IPv4 address');
  return value;
}

export function port(what: string, value: number): number {
  if (!Number.isInteger(value) || value < 1 || value > 65535)
    throw refused(what, String(value), 'a port, 1 to 65535');
  return value;
}

export function urlPath(what: string, value: string): string {
  return matching(
    what,
    value,
    /^\/[A-Za-z0-9._~/-]{0,255}$/,
    "a path: '/' and letters, digits and . _ ~ / -",
  );
}

export function method(value: string): string {
  return matching('method', value, /^(GET|HEAD|OPTIONS)$/, 'GET, HEAD or OPTIONS');
}

/** In single quotes HAProxy takes everything as it is, except the quote itself. */
export function quoted(what: string, value: string): string {
  const allowed = 'printable ASCII without single quote and backslash, 256 at most';
  return `'${matching(what, value, /^[\x20-\x26\x28-\x5b\x5d-\x7e]{1,256}$/, allowed)}'`;
}

/** Of a request; HAProxy reads `%` in it as the start of a variable. */
export function headerValue(what: string, value: string): string {
  return quoted(what, matching(what, value, /^[^%]*$/, 'without %'));
}

export function count(what: string, value: number, most: number, unit = 'a whole number'): number {
  if (!Number.isInteger(value) || value < 1 || value > most)
    throw refused(what, String(value), `${unit}, 1 to ${most}`);
  return value;
}

export function filePath(what: string, value: string): string {
  return matching(
    what,
    value,
    /^\/[A-Za-z0-9._/@+-]{1,200}$/,
    'an absolute path of letters, digits and . _ / @ + -',
  );
}

export function perMinute(what: string, value: number): number {
  return count(what, value, 100_000, 'a number');
}

/** In bytes. */
export function kibibytes(value: number): number {
  return 1024 * count('largest body', value, 4_194_304, 'a number of KiB');
}

export function inSeconds(value: number): number {
  return count('timeout', value, 900, 'a number of seconds');
}

/** Never quoted in an error. */
export function password(value: string): string {
  if (!/^[\w.~+/=-]{12,128}$/.test(value))
    throw refused('password', `${value.length} characters`, 'letters, digits and . _ ~ + / = -, 12 to 128');
  return value;
}

/** SHA-256 in base64url (RFC 7638). */
export function thumbprint(value: string): string {
  return matching('thumbprint', value, /^[A-Za-z0-9_-]{43}$/, '43 letters, digits, _ and -');
}

/** SHA-256 in hexadecimal, as HAProxy prints it. */
export function fingerprint(value: string): string {
  return matching('fingerprint', value, /^[0-9A-F]{64}$/, '64 hexadecimal digits in upper case');
}

/**
 * The form in which HAProxy's `ssl_c_serial,hex` gives a serial: upper case, whole bytes, no leading zero bytes.
 */
export function serial(value: string): string {
  const digits = matching(
    'serial number',
    value,
    /^[0-9A-Fa-f]{1,64}$/,
    'hexadecimal digits, 64 at most',
  ).toUpperCase();
  const even = digits.length % 2 === 0 ? digits : `0${digits}`;
  return even.replace(/^(00)+(?=..)/, '');
}

export function pem(what: string, value: string): string {
  return matching(
    what,
    value,
    /^-----BEGIN [A-Z0-9 ]+-----\r?\n[\x20-\x7e\r\n]*-----END [A-Z0-9 ]+-----\s*$/,
    'PEM',
  );
}

function refused(what: string, value: string, allowed: string): PluginError {
  // A refused PEM can be a key with a mistake in it.
  const shown = allowed === 'PEM' ? `${value.length} characters` : JSON.stringify(value.slice(0, 80));
  return new PluginError({
    code: 'haproxy-value-refused',
    message: `${what} must be ${allowed}, not ${shown}`,
    next: 'correct it where it is set (`bornemisza config check`); the running HAProxy is unchanged',
    outcome: 'terminal',
  });
}
