import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Answer } from './api.ts';
import { follow } from './router.ts';
import { words } from './words.ts';

/** One screen: its heading gets the focus, so that a screen reader announces it. */
export function Screen({ title, children }: { title: string; children: ComponentChildren }): JSX.Element {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = title;
    heading.current?.focus();
  }, [title]);
  return (
    <main id="content">
      <h1 ref={heading} tabIndex={-1}>
        {title}
      </h1>
      {children}
    </main>
  );
}

interface FieldProps {
  readonly name: string;
  readonly label: string;
  readonly type: 'email' | 'password';
  readonly autocomplete: string;
  readonly hint?: string;
}

export function Field({ name, label, type, autocomplete, hint }: FieldProps): JSX.Element {
  const own = {
    id: name,
    name,
    autocomplete,
    required: true,
    ...(hint && { 'aria-describedby': `${name}-hint` }),
  };
  return (
    <p>
      <label for={name}>{label}</label>
      {type === 'password' ? <input type="password" {...own} /> : <input type="email" {...own} />}
      {hint && <small id={`${name}-hint`}>{hint}</small>}
    </p>
  );
}

/** Password managers need to know whose password it is. */
export function Username({ value }: { value: string }): JSX.Element {
  return (
    <input
      class="away"
      type="email"
      name="username"
      autocomplete="username"
      value={value}
      readOnly
      tabIndex={-1}
      aria-hidden="true"
    />
  );
}

interface FormProps {
  readonly action: string;
  readonly danger?: boolean;
  readonly children: ComponentChildren;
  readonly send: (values: Readonly<Record<string, string>>) => Promise<Answer<unknown>>;
  readonly done: () => void;
}

/** A form that shows errors and is not sent twice. */
export function Form({ action, danger, children, send, done }: FormProps): JSX.Element {
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    if (busy) return;
    setBusy(true);
    setError('');
    const answer = await send(Object.fromEntries(new FormData(form)) as Record<string, string>);
    setBusy(false);
    if (!answer.ok) setError(answer.text);
    else {
      form.reset();
      done();
    }
  };
  return (
    <form onSubmit={(event) => void submit(event)}>
      {children}
      <p role="alert" class="error">
        {error}
      </p>
      <button type="submit" aria-disabled={busy} class={danger ? 'danger' : ''}>
        {busy ? words.loading : action}
      </button>
    </form>
  );
}

export function Link({ to, children }: { to: string; children: ComponentChildren }): JSX.Element {
  return (
    <a href={to} onClick={follow}>
      {children}
    </a>
  );
}
