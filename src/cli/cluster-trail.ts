import type { AuditEntry, ClusterAuditAnswer } from '../daemon/control/api.ts';

/** An entry of one node's trail, and who else has the same one. */
interface ClusterEntry extends AuditEntry {
  readonly node: string;
  readonly also: readonly string[];
}

/** Nodes learn of the same event within seconds, and their clocks can differ by as much. */
const SAME_MS = 5000;

/**
 * All trails in one, oldest first by each node's own clock. An entry that several nodes wrote within seconds in the
 * same text, such as the death of a member, is shown once.
 */
export function mergeTrails({ trails }: ClusterAuditAnswer): ClusterEntry[] {
  const all = trails
    .flatMap(({ node, entries }) =>
      entries.map((entry) => ({ entry, node, atMs: Date.parse(entry.at) || 0 })),
    )
    // A trail is in the order of events even if its clock jumped: entries with equal times keep their order.
    .sort((a, b) => a.atMs - b.atMs);
  const merged: { entry: AuditEntry; node: string; atMs: number; also: string[] }[] = [];
  const latest = new Map<string, (typeof merged)[number]>();
  for (const { entry, node, atMs } of all) {
    const { kind, plugin, summary, result, error } = entry;
    const key = JSON.stringify([kind, plugin, summary, result, error?.code, error?.message]);
    const told = latest.get(key);
    const again = told !== undefined && (told.node === node || told.also.includes(node));
    if (told !== undefined && !again && atMs - told.atMs <= SAME_MS) {
      told.also.push(node);
      continue;
    }
    const first = { entry, node, atMs, also: [] };
    merged.push(first);
    latest.set(key, first);
  }
  return merged.map(({ entry, node, also }) => ({ ...entry, node, also }));
}
