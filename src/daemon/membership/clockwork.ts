/**
 * Measures how late the loop runs, by the machine's own timers: each timer leaves its due time here, and the first step
 * at or after it shows the delay. A process that was stopped sees this before it can accuse anybody.
 */
export interface Clockwork {
  expect(dueMs: number): void;
  /** Lateness (ms) of the earliest time that has passed; 0 if none has. Forgets all that have passed. */
  latenessAt(nowMs: number): number;
  readonly pending: number;
}

/** Timers can fire a little early: monotonic clocks and timer wheels round differently. */
const EARLY_MS = 2;

export function createClockwork(): Clockwork {
  const heap: number[] = [];
  return {
    expect: (dueMs) => push(heap, dueMs),
    latenessAt(nowMs) {
      let lateness = 0;
      while (heap.length > 0 && (heap[0] as number) <= nowMs + EARLY_MS)
        lateness = Math.max(lateness, nowMs - pop(heap));
      return lateness;
    },
    get pending() {
      return heap.length;
    },
  };
}

function push(heap: number[], value: number): void {
  let at = heap.length;
  heap.push(value);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if ((heap[parent] as number) <= value) break;
    heap[at] = heap[parent] as number;
    at = parent;
  }
  heap[at] = value;
}

function pop(heap: number[]): number {
  const top = heap[0] as number;
  const last = heap.pop() as number;
  if (heap.length === 0) return top;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && (heap[child + 1] as number) < (heap[child] as number)) child += 1;
    if ((heap[child] as number) >= last) break;
    heap[at] = heap[child] as number;
    at = child;
  }
  heap[at] = last;
  return top;
}
