import { BusyError } from '../store/hashing.ts';
import { CouchError } from '../store/couch.ts';

/** Every problem that the API answers (RFC 9457): status, and a title that says what the person can do. */
export const PROBLEMS = {
  'invalid-request': [400, 'The request is not valid.'],
  'not-signed-in': [401, 'Sign in first.'],
  'wrong-credentials': [401, 'E-mail address or password is wrong.'],
  'not-allowed': [403, 'This is not allowed.'],
  'foreign-origin': [403, 'This request comes from another site.'],
  'registration-closed': [403, 'Nobody can register at the moment.'],
  'not-found': [404, 'There is nothing here.'],
  'already-confirmed': [409, 'This address has an account already. Sign in.'],
  'address-taken': [409, 'This address belongs to another account.'],
  'link-expired': [410, 'This link has been used or is too old. Ask for a new one.'],
  'too-large': [413, 'This is too large.'],
  'quota-exceeded': [413, 'Your space is full. Delete something first.'],
  'not-json': [415, 'Send JSON.'],
  'password-unfit': [422, 'Choose another password.'],
  'too-many-requests': [429, 'Too many tries. Wait a little.'],
  'mail-unavailable': [503, 'No mail can be sent at the moment. Try again later.'],
  'databases-unreachable': [503, 'The database does not answer. Try again in a moment.'],
  'databases-disagree': [503, 'The databases are not all connected. Try again later.'],
  'not-durable': [503, 'This was not stored safely. Try again.'],
  'being-made': [503, 'Your space is being made. Try again in a moment.'],
  busy: [503, 'Too many people sign in at once. Try again in a moment.'],
  internal: [500, 'Something went wrong here.'],
} as const satisfies Record<string, readonly [number, string]>;

export type ProblemCode = keyof typeof PROBLEMS;

interface FieldError {
  /** JSON pointer into the body. */
  readonly pointer: string;
  readonly detail: string;
}

export class Problem extends Error {
  readonly code: ProblemCode;
  readonly detail: string | undefined;
  readonly errors: readonly FieldError[];
  readonly retryAfterS: number | undefined;

  constructor(
    code: ProblemCode,
    {
      detail,
      errors = [],
      retryAfterS,
    }: { detail?: string; errors?: readonly FieldError[]; retryAfterS?: number } = {},
  ) {
    super(detail ?? PROBLEMS[code][1]);
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
  if (error instanceof CouchError)
    return new Problem(error.code === 'databases-refuse' ? 'internal' : error.code);
  return new Problem('internal');
}

export function problemAnswer(problem: Problem): Response {
  const [status, title] = PROBLEMS[problem.code];
  const body = {
    type: `/problems/${problem.code}`,
    status,
    title,
    ...(problem.detail !== undefined && { detail: problem.detail }),
    ...(problem.errors.length > 0 && { errors: problem.errors }),
  };
  const headers = new Headers({ 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
  if (problem.retryAfterS !== undefined) headers.set('retry-after', String(Math.ceil(problem.retryAfterS)));
  return new Response(JSON.stringify(body), { status, headers });
}
