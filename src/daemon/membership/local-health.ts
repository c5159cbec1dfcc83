import type { Preset } from './preset.ts';
import type { PeerId } from './types.ts';

/**
 * How far this node can trust its own timing, after Lifeguard (Dadgar, Phillips, Currey 2018, section IV-A): a node
 * that was late, or missed answers that others got, gives everybody more time. 0 is healthy; each point stretches the
 * timeouts.
 *
 * Unlike Lifeguard, late answers of one peer alone do not count: otherwise a member that answers late, on purpose or
 * because it floods this node and is read slowly, would give every silent host four times its time.
 */
export interface LocalHealth {
  readonly score: number;
  /** Multiplies this node's timeouts: 1 if healthy. */
  readonly stretch: number;
  /** No verdict before this time (ms). */
  readonly holdUntilMs: number;
  /** The answers of these peers were late, or only others got them. */
  missed(peers: readonly PeerId[], nowMs: number): void;
  /** A probe was answered in time. */
  answered(nowMs: number): void;
  /** This node's loop was late. Returns whether it was late enough to matter. */
  late(lagMs: number, nowMs: number): boolean;
}

export function createLocalHealth(preset: Preset, enabled: boolean): LocalHealth {
  let score = 0;
  let holdUntilMs = 0;
  let forgivenMs = 0;
  let lastMiss: { readonly peer: PeerId; readonly atMs: number } | undefined;
  const worsen = (points: number): void => {
    if (enabled) score = Math.min(preset.healthScoreMax, score + points);
  };
  return {
    get score() {
      return score;
    },
    get stretch() {
      return 1 + score * preset.healthStretch;
    },
    get holdUntilMs() {
      return holdUntilMs;
    },
    missed(peers, nowMs) {
      const recent = lastMiss !== undefined && nowMs - lastMiss.atMs < preset.healthRecoveryMs;
      const missed = new Set(recent ? [lastMiss?.peer, ...peers] : peers);
      if (missed.size > 1) worsen(1);
      const peer = peers.at(-1);
      if (peer !== undefined) lastMiss = { peer, atMs: nowMs };
    },
    answered(nowMs) {
      if (score === 0 || nowMs - forgivenMs < preset.healthRecoveryMs) return;
      score -= 1;
      forgivenMs = nowMs;
    },
    late(lagMs, nowMs) {
      if (!enabled || lagMs < preset.lagToleranceMs) return false;
      // One point for the usual delay of a busy loop, two for a stop of several tolerances.
      worsen(lagMs < 4 * preset.lagToleranceMs ? 1 : 2);
      forgivenMs = nowMs;
      holdUntilMs = Math.max(holdUntilMs, nowMs + preset.verdictGraceMs);
      return true;
    },
  };
}
