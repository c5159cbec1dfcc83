/** An error that an operator may read: a stable code, what happened, and what to do next. */
export class OperatorError extends Error {
  readonly code: string;
  readonly next: string;

  constructor(code: string, message: string, next: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'OperatorError';
    this.code = code;
    this.next = next;
  }
}

/** True for any thrown value with a stable code and a next step, whichever room throws it. */
export function hasNextStep(error: unknown): error is Error & { code: string; next: string } {
  return error instanceof Error && 'code' in error && 'next' in error && typeof error.next === 'string';
}
