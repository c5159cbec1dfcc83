import {
  type Core,
  connect,
  isLiving,
  isRestarting,
  type Link,
  nextNonce,
  type Probe,
  schedule,
  send,
} from './core.ts';
import type { PeerId } from './types.ts';

/**
 * Evidence. Every link is pinged by one of its ends when it was silent for an interval (a ping shows its sender alive
 * as well as an answer does, so one exchange serves both); without an answer this node asks two others to try; a closed
 * link is tried again at once, by this node and two others. This node accuses only if all of that fails.
 */
export function probe(core: Core, target: PeerId, cause: Probe['cause']): void {
  const entry = core.entries.get(target);
  if (entry === undefined || !isLiving(entry) || target === core.selfId) return;
  if (isRestarting(core, entry) && cause !== 'asked') return;
  const current = core.probes.get(target);
  if (current !== undefined) {
    if (cause === 'closed') reopen(core, current);
    return;
  }
  const linked = core.links.has(target);
  const waitMs =
    (cause === 'dial' ? core.preset.dialTimeoutMs : core.preset.probeTimeoutMs) * core.health.stretch;
  const started: Probe = {
    nonce: nextNonce(core),
    target,
    cause,
    startedMs: core.nowMs,
    phase: 'direct',
    deadlineMs: core.nowMs + waitMs,
    pinged: linked,
    refused: false,
    relays: new Map(),
  };
  core.probes.set(target, started);
  schedule(core, { kind: 'probeTimeout', epoch: 0, nonce: started.nonce }, waitMs);
  if (linked) send(core, target, { kind: 'ping', nonce: started.nonce });
  else connect(core, target);
  if (cause === 'closed') askRelays(core, started);
}

/** The link closed while a ping was open: the answer can only come over a new link. */
function reopen(core: Core, current: Probe): void {
  current.pinged = false;
  connect(core, current.target);
  askRelays(core, current);
}

/** Two other members at random that were heard lately: one that does not answer could not help. */
export function askRelays(core: Core, current: Probe): void {
  if (current.relays.size > 0) return;
  const able = [...core.links.values()].filter((link) => canRelay(core, link, current.target));
  for (const link of core.random.sample(able, core.preset.indirectProbes)) {
    current.relays.set(link.peer, false);
    send(core, link.peer, { kind: 'pingRequest', nonce: current.nonce, target: current.target });
  }
}

function canRelay(core: Core, link: Link, target: PeerId): boolean {
  const entry = core.entries.get(link.peer);
  return link.peer !== target && !link.unlinking && entry !== undefined && entry.state === 'alive';
}
