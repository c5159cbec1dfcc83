import type { KeyRing } from './keys.ts';

/** The permission in a mailed link. Nothing is stored for it: the token has everything, signed. */
export type MailToken =
  | { readonly purpose: 'register'; readonly email: string }
  | { readonly purpose: 'reset'; readonly account: string; readonly epoch: number }
  | {
      readonly purpose: 'change-email';
      readonly account: string;
      readonly epoch: number;
      readonly from: string;
      readonly email: string;
    };

export const TOKEN_LIFE_MS: Readonly<Record<MailToken['purpose'], number>> = {
  register: 24 * 3600_000,
  reset: 3600_000,
  'change-email': 24 * 3600_000,
};
/** Two addresses of 254 bytes, names and a signature, in base64. */
const MAX_TOKEN = 2048;

export function signMailToken(keys: KeyRing, token: MailToken, nowMs: number): string {
  const body = JSON.stringify([...fields(token), nowMs + TOKEN_LIFE_MS[token.purpose]]);
  const id = keys.newestId;
  const payload = `${id}.${Buffer.from(body).toString('base64url')}`;
  return `${payload}.${keys.mac('mail-token', payload, id).toString('base64url')}`;
}

/** @returns undefined if it is forged, cut short, of another cluster or expired: nobody learns which */
export function readMailToken(keys: KeyRing, text: string, nowMs: number): MailToken | undefined {
  if (text.length > MAX_TOKEN) return undefined;
  const [id = '', body = '', mac = '', ...rest] = text.split('.');
  if (rest.length > 0) return undefined;
  if (!keys.verifies('mail-token', `${id}.${body}`, Buffer.from(mac, 'base64url'), id)) return undefined;
  const parts = JSON.parse(Buffer.from(body, 'base64url').toString()) as unknown[];
  const expiresMs = parts.pop();
  if (typeof expiresMs !== 'number' || expiresMs < nowMs) return undefined;
  return tokenOf(parts);
}

function fields(token: MailToken): unknown[] {
  if (token.purpose === 'register') return ['register', token.email];
  if (token.purpose === 'reset') return ['reset', token.account, token.epoch];
  return ['change-email', token.account, token.epoch, token.from, token.email];
}

/** The signature is ours, so {@link fields} wrote the shape, perhaps in another version. */
function tokenOf(parts: readonly unknown[]): MailToken | undefined {
  const [purpose, one, two, three, four] = parts;
  if (purpose === 'register' && typeof one === 'string') return { purpose, email: one };
  if (typeof one !== 'string' || typeof two !== 'number') return undefined;
  if (purpose === 'reset') return { purpose, account: one, epoch: two };
  if (purpose !== 'change-email' || typeof three !== 'string' || typeof four !== 'string') return undefined;
  return { purpose, account: one, epoch: two, from: three, email: four };
}
