import { ask } from './api.ts';
import { keep, kept, wipe } from './store.ts';

export interface Note {
  readonly _id: string;
  readonly _rev?: string;
  readonly text: string;
  readonly at: number;
  readonly _deleted?: boolean;
  readonly _conflicts?: readonly string[];
}
export interface NotesState {
  readonly notes: readonly Note[];
  /** Ids of notes that are not sent yet. */
  readonly waiting: readonly string[];
  readonly status: 'loading' | 'ready' | 'being-made' | 'offline' | 'signed-out';
}

interface Row {
  readonly doc?: Note;
}
const RETRY_MS = 3000;

/**
 * The notes of one person: shown from this device at once, written here first, sent when there is a connection, and
 * updated by a feed. Replace this example; all data go through `/api/data`.
 */
export class Notes {
  #state: NotesState = { notes: [], waiting: [], status: 'loading' };
  #outbox: readonly Note[] = [];
  readonly #changed: (state: NotesState) => void;
  readonly #ended = new AbortController();
  #sending = false;

  constructor(changed: (state: NotesState) => void) {
    this.#changed = changed;
  }

  async start(): Promise<void> {
    this.#outbox = (await kept<Note[]>('outbox')) ?? [];
    this.#show((await kept<Note[]>('notes')) ?? []);
    addEventListener('online', this.#wake);
    void this.#follow();
  }

  close(): void {
    removeEventListener('online', this.#wake);
    this.#ended.abort();
  }

  add(text: string): void {
    this.#write({ _id: crypto.randomUUID(), text, at: Date.now() });
  }

  remove(note: Note): void {
    this.#write({ ...note, _deleted: true });
  }

  #write(note: Note): void {
    const others = this.#outbox.filter(({ _id }) => _id !== note._id);
    // A note that was never sent is only forgotten here.
    this.#outbox = note._deleted === true && note._rev === undefined ? others : [...others, note];
    const rest = this.#state.notes.filter(({ _id }) => _id !== note._id);
    this.#set({ notes: note._deleted === true ? rest : [note, ...rest] });
    void keep('outbox', this.#outbox);
    void this.#send();
  }

  readonly #wake = (): void => void this.#send();

  async #send(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    for (const note of [...this.#outbox]) {
      const { _conflicts, ...document } = note;
      const answer = await ask<{ rev: string }>('PUT', `/data/${note._id}`, document);
      if (!answer.ok && answer.status !== 409) break;
      // Changed on another device meanwhile: that version is shown, and ours becomes a second note.
      this.#outbox = this.#outbox.filter(({ _id }) => _id !== note._id);
      if (!answer.ok && note._deleted !== true)
        this.#outbox = [...this.#outbox, { _id: crypto.randomUUID(), text: note.text, at: note.at }];
      await keep('outbox', this.#outbox);
    }
    this.#sending = false;
    this.#set({});
  }

  async #follow(): Promise<void> {
    const { signal } = this.#ended;
    while (!signal.aborted) {
      const feed = await this.#load();
      if (feed === undefined) {
        await pause(RETRY_MS, signal);
        continue;
      }
      await this.#send();
      const change = await ask(
        'GET',
        `/data/_changes?feed=longpoll&since=${encodeURIComponent(feed)}`,
        undefined,
        signal,
      );
      if (!change.ok) await pause(RETRY_MS, signal);
    }
  }

  /** @returns where the feed continues; undefined if nothing could be read */
  async #load(): Promise<string | undefined> {
    const at = await ask<{ last_seq: string }>('GET', '/data/_changes?limit=0&descending=true');
    const all = await ask<{ rows: Row[] }>(
      'GET',
      '/data/_all_docs?include_docs=true&conflicts=true&limit=500',
    );
    if (!all.ok || !at.ok) {
      const failed = all.ok ? at : all;
      const code = failed.ok ? '' : failed.code;
      if (code === 'not-signed-in') {
        await wipe();
        this.#set({ status: 'signed-out', notes: [] });
        this.close();
      } else this.#set({ status: code === 'being-made' ? 'being-made' : 'offline' });
      return undefined;
    }
    const stored = all.body.rows.flatMap(({ doc }) => (doc === undefined ? [] : [doc]));
    await keep('notes', stored);
    this.#show(stored, 'ready');
    return at.body.last_seq;
  }

  /** The stored notes, replaced by those that are not sent yet. */
  #show(stored: readonly Note[], status = this.#state.status): void {
    const unsent = new Set(this.#outbox.map(({ _id }) => _id));
    const shown = [...stored.filter(({ _id }) => !unsent.has(_id)), ...this.#outbox];
    const notes = shown.filter(({ _deleted }) => _deleted !== true).sort((a, b) => b.at - a.at);
    this.#set({ notes, status });
  }

  #set(part: Partial<NotesState>): void {
    this.#state = { ...this.#state, ...part, waiting: this.#outbox.map(({ _id }) => _id) };
    this.#changed(this.#state);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
    addEventListener('online', () => resolve(), { once: true });
  });
}
