/** Every request in the journal, for a while: the log has people's addresses and fills the disk. */
import type { Clock } from '../clock.ts';
import { OperatorError } from '../errors.ts';
import type { Role } from '../membership/types.ts';
import { changeOrUndo, type LocalState, type LocalStateFile } from '../local-state.ts';
import { type Done, REQUEST_LOG_MOST_MS, type RequestLogRequest } from './api.ts';

const REQUEST_LOG_DEFAULT_MS = 3_600_000;

interface RequestLogDependencies {
  readonly local: Pick<LocalStateFile, 'state' | 'update'>;
  readonly node: { operatorDid(what: string): void; turn(reason: string): void };
  readonly clock: Pick<Clock, 'wallMs'>;
}

/**
 * Until when every request is logged, ISO 8601 in UTC; undefined: not now. An end that is farther than anybody may ask
 * for comes from a clock that was set back, and does not count.
 */
export function requestLogEnd(
  { requestLogUntilMs: untilMs }: Pick<LocalState, 'requestLogUntilMs'>,
  nowMs: number,
): string | undefined {
  const leftMs = untilMs - nowMs;
  return leftMs > 0 && leftMs <= REQUEST_LOG_MOST_MS ? new Date(untilMs).toISOString() : undefined;
}

/**
 * @throws OperatorError `request-log-no-edge`; IdentityError `disk-full` and the like, and the log is as before then
 */
export async function logRequests(
  { on, forMs = REQUEST_LOG_DEFAULT_MS }: RequestLogRequest,
  { role }: { readonly role: Role },
  { local, node, clock }: RequestLogDependencies,
): Promise<Done> {
  if (role !== 'app')
    throw new OperatorError(
      'request-log-no-edge',
      'a db node has no edge, so it has no requests of visitors to log',
      'run it on an app node; it applies to that node alone',
    );
  const untilMs = on ? clock.wallMs() + forMs : 0;
  await changeOrUndo(local, { requestLogUntilMs: untilMs });
  const until = new Date(untilMs).toISOString();
  node.operatorDid(on ? `every request is logged until ${until}` : 'requests are no longer logged');
  node.turn(`request log ${on ? 'on' : 'off'} by the operator`);
  return {
    done: true,
    message: on
      ? `every request at this edge is logged until ${until}: journalctl -u bornemisza-haproxy@app -o cat -f`
      : 'this edge logs only requests that fail',
  };
}
