/** A dead daemon is not a dead edge: an edge counts as dead after three checks without an answer in 15 s. */
const ASK_EVERY_MS = 5000;
const SILENT_AFTER = 3;

interface Asked {
  silences: number;
  lastMs: number;
  asking: boolean;
}

/** Checks whether the edges of members with an unreachable daemon answer visitors. */
export class EdgeWatch {
  readonly #ask: (address: string) => Promise<boolean>;
  readonly #asked = new Map<string, Asked>();

  /** @param ask whether the edge at an address answers; never throws */
  constructor(ask: (address: string) => Promise<boolean>) {
    this.#ask = ask;
  }

  /** Those that did not answer three times in a row. */
  get silent(): ReadonlySet<string> {
    return new Set(
      [...this.#asked].filter(([, { silences }]) => silences >= SILENT_AFTER).map(([each]) => each),
    );
  }

  /** Call it about once a second. Addresses that are no longer in doubt are forgotten. */
  look(doubtful: readonly string[], nowMs: number, changed: (what: string) => void): void {
    for (const address of this.#asked.keys()) if (!doubtful.includes(address)) this.#asked.delete(address);
    for (const address of doubtful) {
      const asked = this.#asked.get(address) ?? {
        silences: 0,
        lastMs: Number.NEGATIVE_INFINITY,
        asking: false,
      };
      this.#asked.set(address, asked);
      if (asked.asking || nowMs - asked.lastMs < ASK_EVERY_MS) continue;
      asked.asking = true;
      asked.lastMs = nowMs;
      void this.#ask(address).then((answers) => {
        asked.asking = false;
        const was = asked.silences >= SILENT_AFTER;
        asked.silences = answers ? 0 : asked.silences + 1;
        const is = asked.silences >= SILENT_AFTER;
        if (was !== is && this.#asked.get(address) === asked)
          changed(`the edge at ${address} ${is ? 'no longer answers' : 'answers again'}`);
      });
    }
  }
}
