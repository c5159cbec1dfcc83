import { de } from './words-de.ts';
import { en, type Words } from './words-en.ts';

export const language = navigator.language.startsWith('de') ? 'de' : 'en';
export const words: Words = language === 'de' ? de : en;

/** `{0}` and `{1}` in a text. */
export function fill(text: string, ...values: readonly (string | number)[]): string {
  return values.reduce<string>((filled, value, at) => filled.replace(`{${at}}`, String(value)), text);
}
