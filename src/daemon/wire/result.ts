/**
 * Why received data was refused. `unknown-kind` and `version` come from a later version: they are counted, and the
 * sender is not at fault. The others are a fault or an attack.
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

/** A value of a later version, or out of range. */
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
