import { MAX_PASSWORD_LENGTH, type PasswordProblem } from './accounts/password-rules.ts';
import type { Text } from './languages.ts';

/** Why a password is not allowed, for its person. */
export const passwordText = (problem: PasswordProblem, minLength: number): Text =>
  ({
    'too-short': {
      en: `This password is too short. Use at least ${minLength} characters.`,
      de: `Dieses Passwort ist zu kurz. Verwenden Sie mindestens ${minLength} Zeichen.`,
    },
    'too-long': {
      en: `A password has at most ${MAX_PASSWORD_LENGTH} characters.`,
      de: `Ein Passwort hat höchstens ${MAX_PASSWORD_LENGTH} Zeichen.`,
    },
    'contains-address': {
      en: 'This password contains your e-mail address.',
      de: 'Dieses Passwort enthält Ihre E-Mail-Adresse.',
    },
    'contains-site': {
      en: 'This password begins with the name of this site.',
      de: 'Dieses Passwort beginnt mit dem Namen dieser Seite.',
    },
    repeats: { en: 'This password repeats itself.', de: 'Dieses Passwort wiederholt sich.' },
    common: {
      en: 'This password is one of the first that attackers try.',
      de: 'Dieses Passwort ist eines der ersten, die Angreifer versuchen.',
    },
  })[problem];
