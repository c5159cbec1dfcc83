import { isIPv6 } from 'node:net';

/** More keys than this are a flood: the oldest is forgotten, and only the edge's limit applies. */
const MAX_KEYS = 50_000;

/** Counts events of a key in a sliding window. Per node: the edges share their own tables. */
export class Window {
  readonly #most: number;
  readonly #windowMs: number;
  readonly #times = new Map<string, number[]>();

  constructor(most: number, windowMs: number) {
    this.#most = most;
    this.#windowMs = windowMs;
  }

  /** @returns ms until the key may try again; 0: now */
  waitMs(key: string, nowMs: number): number {
    const times = this.#recent(key, nowMs);
    return times.length < this.#most ? 0 : (times[0] as number) + this.#windowMs - nowMs;
  }

  add(key: string, nowMs: number): void {
    const times = [...this.#recent(key, nowMs), nowMs].slice(-this.#most);
    this.#times.delete(key);
    if (this.#times.size >= MAX_KEYS) this.#times.delete(this.#times.keys().next().value as string);
    this.#times.set(key, times);
  }

  clear(key: string): void {
    this.#times.delete(key);
  }

  #recent(key: string, nowMs: number): number[] {
    return (this.#times.get(key) ?? []).filter((each) => nowMs - each < this.#windowMs);
  }
}

/** The client network of a request: an IPv4 address, or the /64 that a provider gives to one customer. */
export function networkOf(forwardedFor: string | undefined, peer: string): string {
  // Our edge removes this header from the request and adds the client's address; only the last hop is from the edge.
  const address = forwardedFor?.split(',').at(-1)?.trim() || peer;
  if (!isIPv6(address)) return address;
  const url = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const [head = '', tail] = url.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const groups =
    tail === undefined
      ? left
      : [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right];
  return `${groups.slice(0, 4).join(':')}::/64`;
}
