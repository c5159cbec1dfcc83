import { type Language, type Text, textIn } from '../languages.ts';
import { BusyError } from '../store/hashing.ts';
import { CouchError } from '../store/couch.ts';

/** Every problem that the API answers (RFC 9457): status, and a title that says what the person can do. */
export const PROBLEMS = {
  'invalid-request': [400, { en: 'The request is not valid.', de: 'Die Anfrage ist ungültig.' }],
  'not-signed-in': [401, { en: 'Sign in first.', de: 'Melden Sie sich erst an.' }],
  'wrong-credentials': [
    401,
    { en: 'E-mail address or password is wrong.', de: 'E-Mail-Adresse oder Passwort ist falsch.' },
  ],
  'wrong-password': [401, { en: 'The password is wrong.', de: 'Das Passwort ist falsch.' }],
  'not-allowed': [403, { en: 'This is not allowed.', de: 'Das ist nicht erlaubt.' }],
  'foreign-origin': [
    403,
    { en: 'This request comes from another site.', de: 'Diese Anfrage kommt von einer anderen Seite.' },
  ],
  'registration-closed': [
    403,
    { en: 'Nobody can register at the moment.', de: 'Zurzeit kann sich niemand registrieren.' },
  ],
  'not-found': [404, { en: 'There is nothing here.', de: 'Hier ist nichts.' }],
  'already-confirmed': [
    409,
    {
      en: 'This address has an account already. Sign in.',
      de: 'Diese Adresse hat schon ein Konto. Melden Sie sich an.',
    },
  ],
  'address-taken': [
    409,
    { en: 'This address belongs to another account.', de: 'Diese Adresse gehört zu einem anderen Konto.' },
  ],
  'link-expired': [
    410,
    {
      en: 'This link has been used or is too old. Ask for a new one.',
      de: 'Dieser Link wurde schon benutzt oder ist zu alt. Fordern Sie einen neuen an.',
    },
  ],
  'too-large': [413, { en: 'This is too large.', de: 'Das ist zu groß.' }],
  'quota-exceeded': [
    413,
    {
      en: 'Your space is full. Delete something first.',
      de: 'Ihr Platz ist voll. Löschen Sie zuerst etwas.',
    },
  ],
  'not-json': [415, { en: 'Send JSON.', de: 'Senden Sie JSON.' }],
  'password-unfit': [422, { en: 'Choose another password.', de: 'Wählen Sie ein anderes Passwort.' }],
  'too-many-requests': [
    429,
    { en: 'Too many tries. Wait a little.', de: 'Zu viele Versuche. Warten Sie ein wenig.' },
  ],
  'mail-unavailable': [
    503,
    {
      en: 'No mail can be sent at the moment. Try again later.',
      de: 'Zurzeit kann keine Mail gesendet werden. Versuchen Sie es später noch einmal.',
    },
  ],
  'databases-unreachable': [
    503,
    {
      en: 'The database does not answer. Try again in a moment.',
      de: 'Die Datenbank antwortet nicht. Versuchen Sie es gleich noch einmal.',
    },
  ],
  'databases-disagree': [
    503,
    {
      en: 'The databases are not all connected. Try again later.',
      de: 'Die Datenbanken sind nicht alle verbunden. Versuchen Sie es später noch einmal.',
    },
  ],
  'not-durable': [
    503,
    {
      en: 'This was not stored safely. Try again.',
      de: 'Das wurde nicht sicher gespeichert. Versuchen Sie es noch einmal.',
    },
  ],
  'being-made': [
    503,
    {
      en: 'Your space is being made. Try again in a moment.',
      de: 'Ihr Platz wird gerade angelegt. Versuchen Sie es gleich noch einmal.',
    },
  ],
  busy: [
    503,
    {
      en: 'Too many people sign in at once. Try again in a moment.',
      de: 'Zu viele Menschen melden sich gleichzeitig an. Versuchen Sie es gleich noch einmal.',
    },
  ],
  internal: [500, { en: 'Something went wrong here.', de: 'Hier ist etwas schiefgegangen.' }],
} as const satisfies Record<string, readonly [number, Text]>;

export type ProblemCode = keyof typeof PROBLEMS;

interface FieldError {
  /** JSON pointer into the body. */
  readonly pointer: string;
  readonly detail: Text | string;
}

export class Problem extends Error {
  readonly code: ProblemCode;
  readonly detail: Text | string | undefined;
  readonly errors: readonly FieldError[];
  readonly retryAfterS: number | undefined;

  constructor(
    code: ProblemCode,
    {
      detail,
      errors = [],
      retryAfterS,
    }: { detail?: Text | string; errors?: readonly FieldError[]; retryAfterS?: number } = {},
  ) {
    super(textIn('en', detail ?? PROBLEMS[code][1]));
    this.name = 'Problem';
    this.code = code;
    this.detail = detail;
    this.errors = errors;
    this.retryAfterS = retryAfterS ?? (PROBLEMS[code][0] === 503 ? 5 : undefined);
  }
}

/** An error of the store as a problem; `internal` for an unexpected one. */
export function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof BusyError) return new Problem('busy', { retryAfterS: 1 });
  // A refusal has a cause that passes: the database, its rights or the password are being made.
  if (error instanceof CouchError)
    return new Problem(error.code === 'databases-refuse' ? 'databases-unreachable' : error.code);
  return new Problem('internal');
}

/** What is for developers only is a plain string, and English. */
export function problemAnswer(problem: Problem, language: Language): Response {
  const [status, title] = PROBLEMS[problem.code];
  const body = {
    type: `/problems/${problem.code}`,
    status,
    title: textIn(language, title),
    ...(problem.detail !== undefined && { detail: textIn(language, problem.detail) }),
    ...(problem.errors.length > 0 && {
      errors: problem.errors.map(({ pointer, detail }) => ({ pointer, detail: textIn(language, detail) })),
    }),
  };
  const headers = new Headers({
    'content-type': 'application/problem+json',
    'content-language': language,
    'cache-control': 'no-store',
  });
  if (problem.retryAfterS !== undefined) headers.set('retry-after', String(Math.ceil(problem.retryAfterS)));
  return new Response(JSON.stringify(body), { status, headers });
}
