/** What keys ask for: one thing at a time. The last key pressed meanwhile follows, and is shown until then. */
export class Acts {
  /** For the screen. */
  note: string;
  #busy = false;
  #next: { readonly what: string; readonly work: () => Promise<void> } | undefined;

  constructor(note: string) {
    this.note = note;
  }

  get shown(): string {
    return this.#next === undefined ? this.note : `${this.note} (then: ${this.#next.what})`;
  }

  begin(what: string, work: () => Promise<void>): void {
    if (this.#busy) {
      this.#next = { what, work };
      return;
    }
    this.#busy = true;
    this.note = `${what} …`;
    const fromMs = performance.now();
    work()
      .then(
        // How soon the act itself returned; what follows from it, and when, is what the screen shows.
        () =>
          (this.note = `${what}: asked in ${((performance.now() - fromMs) / 1000).toFixed(1)} s; watch the screen`),
        (error: unknown) =>
          (this.note = `${what}: ${error instanceof Error ? error.message : String(error)}`),
      )
      .finally(() => {
        this.#busy = false;
        const next = this.#next;
        this.#next = undefined;
        if (next !== undefined) this.begin(next.what, next.work);
      });
  }
}
