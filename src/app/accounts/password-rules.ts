/** NIST SP 800-63B-4 section 3.1.1.2: length, and a list of the first guesses; no composition rules, no expiry. */
interface PasswordContext {
  readonly minLength: number;
  readonly email: string;
  readonly siteName: string;
}

export const MAX_PASSWORD_LENGTH = 128;
export type PasswordProblem =
  | 'too-short'
  | 'too-long'
  | 'contains-address'
  | 'contains-site'
  | 'repeats'
  | 'common';

/** What attackers try first, without case, final digits and usual replacements. */
const COMMON = new Set(
  `password passphrase qwerty qwertyuiop asdfghjkl zxcvbnm iloveyou letmein welcome admin administrator sunshine
  princess football baseball monkey dragon superman batman trustno whatever starwars computer internet michael
  jennifer jordan hunter shadow master freedom secret changeme default guest login test testing hello
  passwort hallo geheim schatz fussball kennwort willkommen`
    .split(/\s+/)
    .filter(Boolean),
);
const ROWS = [
  'abcdefghijklmnopqrstuvwxyz',
  '1234567890',
  'qwertyuiopasdfghjklzxcvbnm',
  'qwertzuiopasdfghjklyxcvbnm',
];

/** @returns undefined if the password is allowed. Count and comparison use code points in NFC, as the hash does. */
export function passwordProblem(password: string, context: PasswordContext): PasswordProblem | undefined {
  const text = password.normalize('NFC');
  const points = [...text];
  if (points.length < context.minLength) return 'too-short';
  if (points.length > MAX_PASSWORD_LENGTH) return 'too-long';
  const plain = text.toLowerCase();
  const local = context.email.split('@')[0]?.toLowerCase() ?? '';
  if (plain.includes(context.email.toLowerCase()) || (local.length >= 4 && plain.startsWith(local)))
    return 'contains-address';
  const site = context.siteName.toLowerCase();
  if (site.length >= 4 && plain.startsWith(site)) return 'contains-site';
  if (new Set(points).size < 5 || isRepeated(plain)) return 'repeats';
  return isCommon(plain) ? 'common' : undefined;
}

/** `abcabcabcabc`: one short piece, repeated. */
function isRepeated(text: string): boolean {
  for (let size = 1; size <= text.length / 2; size += 1) {
    const piece = text.slice(0, size);
    if (piece.repeat(Math.ceil(text.length / size)).startsWith(text)) return true;
  }
  return false;
}

function isCommon(text: string): boolean {
  const replaced = text.replaceAll('@', 'a').replaceAll('$', 's').replaceAll('0', 'o').replaceAll('3', 'e');
  const isGuessed = [text, replaced].map((each) => each.replaceAll(/[^\p{L}]/gu, '')).some(isOneOrTwoWords);
  return isGuessed || ROWS.some((row) => (row + row).includes(text));
}

/** Two guessed words in a row, or one with digits around it, are guessed as well. */
function isOneOrTwoWords(letters: string): boolean {
  if (COMMON.has(letters)) return true;
  return [...COMMON].some((one) => letters.startsWith(one) && COMMON.has(letters.slice(one.length)));
}
