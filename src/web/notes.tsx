import type { JSX } from 'preact';
import { useEffect, useMemo, useState } from 'preact/hooks';
import { Screen } from './form.tsx';
import { type Note, Notes, type NotesState } from './notes-model.ts';
import { language, words } from './words.ts';

const date = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' });

export function NotesScreen({ signedOut }: { signedOut: () => void }): JSX.Element {
  const [state, setState] = useState<NotesState>({ notes: [], waiting: [], status: 'loading' });
  const [text, setText] = useState('');
  const notes = useMemo(() => new Notes(setState), []);
  useEffect(() => {
    void notes.start();
    return () => notes.close();
  }, [notes]);
  useEffect(() => {
    if (state.status === 'signed-out') signedOut();
  }, [state.status]);
  const add = (event: Event): void => {
    event.preventDefault();
    if (text.trim() === '') return;
    notes.add(text.trim());
    setText('');
  };
  return (
    <Screen title={words.notes}>
      <form class="add" onSubmit={add}>
        <label for="note">{words.noteLabel}</label>
        <textarea id="note" rows={3} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        <button type="submit">{words.addNote}</button>
      </form>
      <p role="status">{statusText(state)}</p>
      <ul class="notes">
        {state.notes.map((note) => (
          <NoteItem
            key={note._id}
            note={note}
            waiting={state.waiting.includes(note._id)}
            remove={() => notes.remove(note)}
          />
        ))}
      </ul>
    </Screen>
  );
}

function NoteItem({
  note,
  waiting,
  remove,
}: {
  note: Note;
  waiting: boolean;
  remove: () => void;
}): JSX.Element {
  return (
    <li>
      <p>{note.text}</p>
      <footer>
        <small>
          {waiting ? words.waiting : date.format(note.at)}
          {note._conflicts !== undefined && ` · ${words.conflict}`}
        </small>
        <button
          type="button"
          class="quiet"
          onClick={remove}
          aria-label={`${words.remove}: ${note.text.slice(0, 40)}`}
        >
          {words.remove}
        </button>
      </footer>
    </li>
  );
}

function statusText({ status, notes }: NotesState): string {
  if (status === 'loading') return words.loading;
  if (status === 'being-made') return words.beingMade;
  if (status === 'offline') return words.offline;
  return notes.length === 0 ? words.noNotes : '';
}
