/** Virtual time: a binary heap of things to do, first by time, then in the order in which they were put in. */
export interface Queue {
  readonly nowMs: number;
  readonly size: number;
  at(timeMs: number, act: () => void): void;
  after(delayMs: number, act: () => void): void;
  /** Does everything up to and including `untilMs`; time stands there afterwards. */
  runUntil(untilMs: number): void;
}

interface Item {
  readonly timeMs: number;
  readonly order: number;
  readonly act: () => void;
}

export function createQueue(): Queue {
  const heap: Item[] = [];
  let nowMs = 0;
  let order = 0;
  const at = (timeMs: number, act: () => void): void => {
    push(heap, { timeMs: Math.max(timeMs, nowMs), order, act });
    order += 1;
  };
  return {
    get nowMs() {
      return nowMs;
    },
    get size() {
      return heap.length;
    },
    at,
    after: (delayMs, act) => at(nowMs + delayMs, act),
    runUntil(untilMs) {
      for (let next = heap[0]; next !== undefined && next.timeMs <= untilMs; next = heap[0]) {
        pop(heap);
        nowMs = next.timeMs;
        next.act();
      }
      nowMs = Math.max(nowMs, untilMs);
    },
  };
}

function before(one: Item, other: Item): boolean {
  return one.timeMs < other.timeMs || (one.timeMs === other.timeMs && one.order < other.order);
}

function push(heap: Item[], item: Item): void {
  let at = heap.length;
  heap.push(item);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!before(item, heap[parent] as Item)) break;
    heap[at] = heap[parent] as Item;
    at = parent;
  }
  heap[at] = item;
}

function pop(heap: Item[]): void {
  const last = heap.pop() as Item;
  if (heap.length === 0) return;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && before(heap[child + 1] as Item, heap[child] as Item)) child += 1;
    if (!before(heap[child] as Item, last)) break;
    heap[at] = heap[child] as Item;
    at = child;
  }
  heap[at] = last;
}
