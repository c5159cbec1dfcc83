/** Why a certificate authority gave no usable answer. */
type AcmeCode =
  | 'certificate-unreachable'
  | 'certificate-limited'
  | 'certificate-refused'
  | 'certificate-caa'
  | 'certificate-names'
  | 'certificate-account'
  | 'certificate-replaced'
  | 'certificate-answer';

/** A problem document (RFC 9457) as a CA sends it (RFC 8555 section 6.7); only what is read here. */
export interface AcmeProblem {
  /** The last word of `urn:ietf:params:acme:error:…`, e.g. `rateLimited`; '' for another type. */
  readonly type: string;
  /** One line, at most {@link MOST_DETAIL} characters. */
  readonly detail: string;
  /** The names concerned. */
  readonly names: readonly string[];
}

interface AcmeErrorFacts {
  readonly code: AcmeCode;
  /** One sentence that names the cause. */
  readonly message: string;
  /** One sentence: what the operator can do next. */
  readonly next: string;
  /** `retry`: it can succeed later; `terminal`: the same call fails again until somebody changes something. */
  readonly outcome: 'retry' | 'terminal';
  /** How long the CA asks us to wait (RFC 8555 section 6.6). */
  readonly retryAfterMs?: number | undefined;
  readonly problem?: AcmeProblem | undefined;
  readonly cause?: unknown;
}

export class AcmeError extends Error {
  readonly code: AcmeCode;
  readonly next: string;
  readonly outcome: 'retry' | 'terminal';
  readonly retryAfterMs: number | undefined;
  readonly problem: AcmeProblem | undefined;

  constructor(facts: AcmeErrorFacts) {
    super(facts.message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = 'AcmeError';
    this.code = facts.code;
    this.next = facts.next;
    this.outcome = facts.outcome;
    this.retryAfterMs = facts.retryAfterMs;
    this.problem = facts.problem;
  }
}

const TYPE = 'urn:ietf:params:acme:error:';
/** A CA's text goes into a log and on a screen: one line of it. */
const MOST_DETAIL = 300;
/** Our orders have some ten names; an answer may name each once. */
const MOST_NAMES = 100;

/** @param value parsed JSON of any form */
export function problemOf(value: unknown): AcmeProblem | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { type, detail, identifier, subproblems } = value as Readonly<Record<string, unknown>>;
  if (typeof type !== 'string') return undefined;
  // RFC 8555 section 6.7.1: each name has a problem of its own.
  const inside = Array.isArray(subproblems) ? subproblems.slice(0, MOST_NAMES).flatMap(subproblem) : [];
  const own = nameOf(identifier);
  const said = [detail, ...inside.map((each) => each.detail)].find(
    (each) => typeof each === 'string' && each !== '',
  );
  return {
    type: type.startsWith(TYPE) ? type.slice(TYPE.length, TYPE.length + 40) : '',
    detail: oneLine(typeof said === 'string' ? said : type),
    names: [...new Set([...(own === undefined ? [] : [own]), ...inside.flatMap(({ names }) => names)])],
  };
}

function subproblem(value: unknown): AcmeProblem[] {
  const { type, detail, identifier } = (value ?? {}) as Readonly<Record<string, unknown>>;
  const found = problemOf({ type, detail, identifier });
  return found === undefined ? [] : [found];
}

function nameOf(identifier: unknown): string | undefined {
  const { value } = (identifier ?? {}) as { readonly value?: unknown };
  return typeof value === 'string' ? oneLine(value).slice(0, 253) : undefined;
}

/** Printable and bounded: foreign text must not move a terminal's cursor. */
export function oneLine(text: string): string {
  const printable = text.replaceAll(/[\p{C}\p{Z}]+/gu, ' ').trim();
  return printable.length > MOST_DETAIL ? `${printable.slice(0, MOST_DETAIL)}…` : printable;
}

type Meaning = Pick<AcmeErrorFacts, 'code' | 'outcome' | 'next'>;

const LIMITED: Meaning = {
  code: 'certificate-limited',
  outcome: 'retry',
  next: 'wait: it is tried again when the CA accepts orders; the present certificate stays in use',
};
const REFUSED: Meaning = {
  code: 'certificate-refused',
  outcome: 'retry',
  next: 'point the name to the app nodes, and open port 80 of each to everybody; it is tried again',
};
const REFUSED_BY_DNS: Meaning = {
  ...REFUSED,
  next: 'compare the name servers that the registrar has with those of the zone: dig NAME NS; it is tried again',
};
const CAA: Meaning = {
  code: 'certificate-caa',
  outcome: 'retry',
  next: 'add the CA to the CAA record of the name, or delete the record; it is tried again',
};
const NAMES: Meaning = {
  code: 'certificate-names',
  outcome: 'terminal',
  next: 'remove the name from certificates.names: this CA signs no certificate for it',
};
const ACCOUNT: Meaning = {
  code: 'certificate-account',
  outcome: 'terminal',
  next: 'read what the CA requires of an account (its terms, a contact), and correct [certificates]',
};
const REPLACED: Meaning = {
  code: 'certificate-replaced',
  outcome: 'retry',
  next: 'wait: the order is repeated without the certificate that it replaces',
};
const DOWN: Meaning = {
  code: 'certificate-unreachable',
  outcome: 'retry',
  next: 'wait: it is tried again; the present certificate stays in use',
};
const OTHER: Meaning = {
  code: 'certificate-answer',
  outcome: 'retry',
  next: 'read the CA’s reason; if it repeats, report it with this line: the CA and this version do not agree',
};

/** RFC 8555 section 6.7 and RFC 9773 section 5; for any other type the status of the answer decides. */
const MEANINGS: ReadonlyMap<string, Meaning> = new Map(
  Object.entries({
    rateLimited: LIMITED,
    connection: REFUSED,
    dns: REFUSED,
    incorrectResponse: REFUSED,
    tls: REFUSED,
    compound: REFUSED,
    // A failed check is {@link notAuthorized}; as the answer to a call, the CA does not know the account or its key.
    unauthorized: ACCOUNT,
    caa: CAA,
    rejectedIdentifier: NAMES,
    unsupportedIdentifier: NAMES,
    accountDoesNotExist: ACCOUNT,
    externalAccountRequired: ACCOUNT,
    userActionRequired: ACCOUNT,
    invalidContact: ACCOUNT,
    unsupportedContact: ACCOUNT,
    alreadyReplaced: REPLACED,
    serverInternal: DOWN,
  }),
);

interface Refusal {
  readonly status: number;
  readonly problem: AcmeProblem | undefined;
  readonly retryAfterMs: number | undefined;
  /** Host of the CA. */
  readonly ca: string;
}

/** A refusal of the CA, in words for the operator. */
export function refusal({ status, problem, retryAfterMs, ca }: Refusal): AcmeError {
  const meaning =
    (problem === undefined ? undefined : MEANINGS.get(problem.type)) ?? byStatus(status, retryAfterMs);
  const about = problem === undefined || problem.names.length === 0 ? '' : ` for ${problem.names.join(', ')}`;
  return new AcmeError({
    ...meaning,
    message: `the CA at ${ca} refuses${about}: ${problem?.detail ?? `status ${status}`}`,
    retryAfterMs,
    problem,
  });
}

/** RFC 9110 section 10.2.3: a server that sends 503 with a time is busy, not broken. */
function byStatus(status: number, retryAfterMs: number | undefined): Meaning {
  if (status === 429 || (status === 503 && retryAfterMs !== undefined)) return LIMITED;
  return status >= 500 ? DOWN : OTHER;
}

/**
 * The CA could not check a name (RFC 8555 section 7.1.6: the authorization is invalid).
 *
 * @param by the type of the challenge
 */
export function notAuthorized(name: string, problem: AcmeProblem | undefined, by = 'http-01'): AcmeError {
  const refused = by === 'dns-01' ? REFUSED_BY_DNS : REFUSED;
  const meaning = problem?.type === 'caa' ? CAA : problem?.type === 'rateLimited' ? LIMITED : refused;
  return new AcmeError({
    ...meaning,
    message: `the CA could not check ${name}: ${problem?.detail ?? 'it gives no reason'}`,
    problem,
  });
}

export function unreachable(url: string, why: string, cause?: unknown): AcmeError {
  return new AcmeError({
    code: 'certificate-unreachable',
    message: `${url} does not answer: ${oneLine(why)}; the present certificate stays in use`,
    next: 'run `curl -v` with this address on this host, and correct its name servers or firewall; it is tried again',
    outcome: 'retry',
    cause,
  });
}

/** The CA's answer does not follow RFC 8555. */
export function strange(ca: string, what: string, cause?: unknown): AcmeError {
  return new AcmeError({
    ...OTHER,
    message: `the answer of the CA at ${ca} does not follow RFC 8555: ${oneLine(what)}`,
    cause,
  });
}
