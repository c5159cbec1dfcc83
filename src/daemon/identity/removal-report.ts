import type { MemberRow } from '../control/api.ts';
import type { Identity } from './identity.ts';
import type { PeerId } from '../membership/types.ts';
import type { Reconciler } from '../reconciler/reconciler.ts';
import type { Transport } from '../transport/transport.ts';

/** One request: "do your programs refuse this PeerId?" */
const REMOVED_PROTOCOL = '/bornemisza/removed/1';
const LIMITS = { timeoutMs: 2000, maxBytes: 64 };
/** A revocation reaches all within a second, and HAProxy applies it within another; a busy machine needs more. */
const WAIT_MS = 6000;
const ASK_AGAIN_MS = 200;

export interface RemovalDependencies {
  readonly identity: Pick<Identity, 'name' | 'roster'>;
  readonly transport: Pick<Transport, 'handle' | 'request'>;
  readonly reconciler: Pick<Reconciler, 'converged'>;
}

/** `heard`: the node has the revocation, but its HAProxy does not refuse the certificate yet. */
type Progress = 'unknown' | 'heard' | 'applied';

function progressHere(
  { identity, reconciler }: Omit<RemovalDependencies, 'transport'>,
  peer: PeerId,
): Progress {
  if (!identity.roster.isRevoked(peer)) return 'unknown';
  return reconciler.converged('haproxy') ? 'applied' : 'heard';
}

export function serveRemoved(dependencies: RemovalDependencies): void {
  dependencies.transport.handle(REMOVED_PROTOCOL, async (_from, question) =>
    Buffer.from(progressHere(dependencies, Buffer.from(question).toString('latin1'))),
  );
}

/**
 * Asks every reachable member until all refuse the removed one, or the time is over.
 *
 * @returns which members refuse it and which do not, for the operator
 */
export async function removalReport(
  dependencies: RemovalDependencies,
  rows: readonly MemberRow[],
  removed: PeerId,
): Promise<string> {
  const others = rows.filter(({ self, peerId, state }) => !self && peerId !== removed && state !== 'left');
  const asked = others.filter(({ state }) => state === 'alive');
  const open = new Map<string, string>(asked.map(({ name }) => [name, 'does not answer']));
  const { name: own } = dependencies.identity;
  open.set(own, 'heard');
  const untilMs = performance.now() + WAIT_MS;
  for (;;) {
    await Promise.all(
      [...open.keys()].map(async (name) => {
        const peer = asked.find((each) => each.name === name)?.peerId;
        const said =
          peer === undefined ? progressHere(dependencies, removed) : await ask(dependencies, peer, removed);
        if (said === 'applied') open.delete(name);
        else open.set(name, said === 'heard' ? 'its HAProxy has not applied it' : said);
      }),
    );
    if (open.size === 0 || performance.now() > untilMs) break;
    await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
  }
  const applied = [own, ...asked.map(({ name }) => name)].filter((name) => !open.has(name));
  return words(
    applied,
    open,
    others.filter(({ state }) => state !== 'alive').map(({ name }) => name),
  );
}

async function ask({ transport }: RemovalDependencies, peer: PeerId, removed: PeerId): Promise<string> {
  try {
    const answer = await transport.request(peer, REMOVED_PROTOCOL, Buffer.from(removed, 'latin1'), LIMITS);
    const said = Buffer.from(answer).toString('latin1');
    if (said === 'applied' || said === 'heard') return said;
    return 'does not know of it yet';
  } catch {
    return 'does not answer';
  }
}

function words(
  applied: readonly string[],
  open: ReadonlyMap<string, string>,
  away: readonly string[],
): string {
  const parts = [
    applied.length > 0 ? `its certificate is refused by ${applied.join(', ')}` : '',
    ...[...open].map(([name, why]) => `NOT YET by ${name}: ${why}`),
    away.length > 0 ? `not reachable: ${away.join(', ')} (each is notified when it is back)` : '',
  ].filter((part) => part !== '');
  const next = open.size > 0 ? '. Next: see `bornemisza status` on each that has not applied it' : '';
  return `${parts.join('; ')}${next}`;
}
