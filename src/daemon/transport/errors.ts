type TransportErrorCode =
  /** Another program holds the port. */
  | 'address-in-use'
  /** No device of this host has the address, or it is down. */
  | 'address-not-here'
  /** The other host itself refused the connection: no process listens there. */
  | 'connection-refused'
  /** The other side, or this node's gate, refuses. */
  | 'not-admitted'
  | 'timeout'
  | 'not-connected'
  | 'too-large'
  | 'closed'
  | 'failed';

/** If one of these is thrown, nothing was changed: a link is up completely or not at all. */
export class TransportError extends Error {
  readonly code: TransportErrorCode;

  constructor(code: TransportErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'TransportError';
    this.code = code;
  }
}

/**
 * libp2p wraps the error of the socket, sometimes in an AggregateError with one per address. Bounded against cycles.
 */
export function socketCode(error: unknown, depth = 0): string | undefined {
  if (!(error instanceof Error) || depth > 4) return undefined;
  if ('code' in error && typeof error.code === 'string' && /^E[A-Z]+$/.test(error.code)) return error.code;
  const inner =
    error instanceof AggregateError ? [...(error.errors as unknown[]), error.cause] : [error.cause];
  return inner.map((each) => socketCode(each, depth + 1)).find((code) => code !== undefined);
}

/** The cause of a failed dial, from libp2p's error. */
export function dialError(error: unknown, peer: string): TransportError {
  if (error instanceof TransportError) return error;
  const cause = error instanceof Error ? error : new Error(String(error));
  if (socketCode(cause) === 'ECONNREFUSED')
    return new TransportError('connection-refused', `nothing listens at the address of ${peer}`, { cause });
  if (cause.name === 'TimeoutError' || cause.name === 'AbortError')
    return new TransportError('timeout', `no answer from ${peer}`, { cause });
  return new TransportError('failed', `dialling ${peer} failed: ${cause.message}`, { cause });
}
