/**
 * Why something received was not taken. `unknown-kind` and `version` are a later version speaking: counted, not held
 * against the sender. The others are a fault or an attack.
 */
type RefusalCode = 'size' | 'version' | 'unknown-kind' | 'malformed' | 'limit' | 'value' | 'signature';

export interface Refusal {
  readonly code: RefusalCode;
  readonly reason: string;
}

export type Decoded<T> = { readonly ok: true; readonly value: T } | ({ readonly ok: false } & Refusal);

export function refused(code: RefusalCode, reason: string): { readonly ok: false } & Refusal {
  return { ok: false, code, reason };
}

/** A value of a later version, or one that is out of its range. */
export class BadValue extends Error {}

/** A decoder's own error, turned into a refusal: malformed input throws RangeError or Error inside the library. */
export function attempt<T>(decode: () => Decoded<T>): Decoded<T> {
  try {
    return decode();
  } catch (error) {
    if (error instanceof BadValue) return refused('value', error.message);
    return refused('malformed', error instanceof Error ? error.message.slice(0, 200) : 'not decodable');
  }
}
