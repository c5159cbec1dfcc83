/** What a browser noticed during one step. */
export interface Visited {
  readonly requests: number;
  /** No answer, or one of 500 and above. */
  readonly failed: number;
  /** Longest time without a good answer, from the begin of the step to its end, seconds. */
  readonly longestGap: number;
}

/** A new connection each time, as often as the machine of a demo has room for beside all nodes. */
const EVERY_MS = 200;

/** A browser that asks for the site again and again, whatever happens meanwhile. */
export class Visitor {
  readonly #visit: () => Promise<string>;
  readonly #everyMs: number;
  readonly #under = new Set<Promise<void>>();
  readonly #timer: NodeJS.Timeout;
  readonly #beganMs = performance.now();
  #requests = 0;
  #failed = 0;
  #goodMs = this.#beganMs;
  #gapMs = 0;

  /** @param visit one request: the answer with its status in front, or why there is none */
  constructor(visit: () => Promise<string>, everyMs = EVERY_MS) {
    this.#visit = visit;
    this.#everyMs = everyMs;
    this.#timer = setInterval(() => this.#ask(), this.#everyMs);
  }

  /** No more requests; resolves when the last one has ended. */
  async end(): Promise<Visited> {
    clearInterval(this.#timer);
    await Promise.all(this.#under);
    this.#gap();
    return { requests: this.#requests, failed: this.#failed, longestGap: this.#gapMs / 1000 };
  }

  /** A slow answer delays no later request. */
  #ask(): void {
    this.#requests += 1;
    // A world without a running node throws before it makes a promise.
    const asked = Promise.resolve()
      .then(this.#visit)
      .catch((error: unknown) => String(error))
      .then((answer) => {
        if (/^[1-4]\d\d\b/.test(answer)) this.#gap();
        else this.#failed += 1;
        this.#under.delete(asked);
      });
    this.#under.add(asked);
  }

  #gap(): void {
    const nowMs = performance.now();
    this.#gapMs = Math.max(this.#gapMs, nowMs - this.#goodMs);
    this.#goodMs = nowMs;
  }
}
