/** A failure in identity or admission, for operators and programs. */
interface IdentityErrorFacts {
  /** A stable word in kebab-case, e.g. `token-expired`. */
  readonly code: string;
  /** One sentence that names the cause. Never holds a secret. */
  readonly message: string;
  /** One sentence: what the operator can do next. */
  readonly next: string;
  /** Whether another attempt, without a change, can succeed. Default false. */
  readonly retry?: boolean;
  readonly cause?: unknown;
}

/** The only error that leaves the identity room. */
export class IdentityError extends Error {
  readonly code: string;
  readonly next: string;
  readonly retry: boolean;

  constructor(facts: IdentityErrorFacts) {
    super(facts.message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = 'IdentityError';
    this.code = facts.code;
    this.next = facts.next;
    this.retry = facts.retry ?? false;
  }
}

/** Foreign text for a message: one line, quoted, cut to 80 characters. */
export function shown(text: string): string {
  const whole = JSON.stringify(text.slice(0, 80));
  return text.length > 80 ? `${whole.slice(0, -1)}…"` : whole;
}
