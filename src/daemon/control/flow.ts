import { OperatorError } from '../errors.ts';
import type { LocalStateFile } from '../local-state.ts';
import type { Reconciler } from '../reconciler/reconciler.ts';
import type { EndRequest, HaproxyTraffic, StreamsEnded } from './api.ts';

/** What goes through this node's HAProxy, and the end of what lasts. */
export interface Flow {
  readonly traffic: () => Promise<HaproxyTraffic>;
  /** Ends a share of the web sockets and event streams: they wait for nothing. */
  readonly endStreams: (share: number) => Promise<StreamsEnded>;
}

export function flowOf(reconciler: Pick<Reconciler, 'ask'>): Flow {
  return {
    traffic: () => reconciler.ask('haproxy', 'show', {}) as Promise<HaproxyTraffic>,
    endStreams: (share) => reconciler.ask('haproxy', 'end', { share }) as Promise<StreamsEnded>,
  };
}

/** @throws OperatorError `in-traffic`: the clients would come back */
export async function endStreams(
  { share }: EndRequest,
  local: Pick<LocalStateFile, 'state'>,
  flow: Pick<Flow, 'endStreams'>,
): Promise<StreamsEnded> {
  if (local.state.maintenance) return await flow.endStreams(share);
  throw new OperatorError(
    'in-traffic',
    'this node is not in maintenance, so the clients would come back to it; nothing was ended',
    'bornemisza maintenance on --wait',
  );
}
