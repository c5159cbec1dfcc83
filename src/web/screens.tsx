import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import { ask, type Me } from './api.ts';
import { Field, Form, Link, Screen, Username } from './form.tsx';
import { go } from './router.ts';
import { wipe } from './store.ts';
import { fill, words } from './words.ts';

interface Signed {
  readonly signedIn: () => void;
}

export function SignIn({ signedIn, note }: Signed & { note?: string }): JSX.Element {
  return (
    <Screen title={words.signIn}>
      {note && <p role="status">{note}</p>}
      <Form action={words.signIn} send={(values) => ask('POST', '/session', values)} done={signedIn}>
        <Field name="email" label={words.email} type="email" autocomplete="username" />
        <Field name="password" label={words.password} type="password" autocomplete="current-password" />
      </Form>
      <p>
        <Link to="/forgotten">{words.forgotten}</Link>
      </p>
      <p>
        {words.noAccount} <Link to="/register">{words.register}</Link>
      </p>
    </Screen>
  );
}

/** Requests a mail: to register, or for a forgotten password. */
export function AskForMail({ kind }: { kind: 'register' | 'forgotten' }): JSX.Element {
  const [sentTo, setSentTo] = useState('');
  const isNew = kind === 'register';
  if (sentTo !== '')
    return (
      <Screen title={words.sentTitle}>
        <p>{fill(words.sentText, sentTo)}</p>
      </Screen>
    );
  const send = async ({ email = '' }: Readonly<Record<string, string>>) => {
    const answer = await ask('POST', isNew ? '/registrations' : '/password-resets', { email });
    if (answer.ok) setSentTo(email);
    return answer;
  };
  return (
    <Screen title={isNew ? words.register : words.forgottenTitle}>
      <p>{isNew ? words.registerText : words.forgottenText}</p>
      <Form action={words.send} send={send} done={() => undefined}>
        <Field name="email" label={words.email} type="email" autocomplete="email" />
      </Form>
      <p>
        {isNew && words.haveAccount} <Link to="/">{words.signIn}</Link>
      </p>
    </Screen>
  );
}

function NewPasswordField({ label }: { label: string }): JSX.Element {
  return (
    <Field
      name="password"
      label={label}
      type="password"
      autocomplete="new-password"
      hint={words.chooseText}
    />
  );
}

export function ChoosePassword({ token, signedIn }: Signed & { token: string }): JSX.Element {
  return (
    <Screen title={words.chooseTitle}>
      <Form
        action={words.save}
        send={({ password }) => ask('POST', '/accounts', { token, password })}
        done={signedIn}
      >
        <NewPasswordField label={words.password} />
      </Form>
    </Screen>
  );
}

export function NewPassword({ token }: { token: string }): JSX.Element {
  const [done, setDone] = useState(false);
  if (done) return <SignIn signedIn={() => location.assign('/')} note={words.newDone} />;
  return (
    <Screen title={words.newTitle}>
      <Form
        action={words.save}
        send={({ password }) => ask('PUT', '/password', { token, password })}
        done={() => setDone(true)}
      >
        <NewPasswordField label={words.newPassword} />
      </Form>
    </Screen>
  );
}

export function ConfirmEmail({ token, signedIn }: Signed & { token: string }): JSX.Element {
  return (
    <Screen title={words.confirmTitle}>
      <Form action={words.confirm} send={() => ask('PUT', '/me/email', { token })} done={signedIn}>
        {null}
      </Form>
    </Screen>
  );
}

const MB = 1024 * 1024;

export function Account({
  me,
  changed,
  gone,
}: {
  me: Me;
  changed: () => void;
  gone: () => void;
}): JSX.Element {
  const [note, setNote] = useState('');
  const done = (): void => {
    setNote(words.done);
    changed();
  };
  const leave = (): void => void wipe().then(gone);
  const { bytes, usedBytes } = me.quota;
  return (
    <Screen title={words.account}>
      <p>{me.email}</p>
      {usedBytes !== null && <p>{fill(words.used, (usedBytes / MB).toFixed(1), bytes / MB)}</p>}
      <p role="status">{note}</p>
      <details>
        <summary>{words.changePassword}</summary>
        <Form
          action={words.save}
          send={(values) => ask('PUT', '/me/password', { old: values['old'], new: values['new'] })}
          done={done}
        >
          <Username value={me.email} />
          <Field name="old" label={words.oldPassword} type="password" autocomplete="current-password" />
          <Field name="new" label={words.newPassword} type="password" autocomplete="new-password" />
        </Form>
      </details>
      <ChangeEmail sent={() => setNote(words.sentTitle)} />
      <p>
        <a href="/api/me/export" download="export.json">
          {words.exportData}
        </a>
      </p>
      <Form action={words.signOut} send={() => ask('DELETE', '/session')} done={leave}>
        {null}
      </Form>
      <Form action={words.signOutEverywhere} send={() => ask('DELETE', '/sessions')} done={leave}>
        {null}
      </Form>
      <details>
        <summary>{words.deleteAccount}</summary>
        <p>{words.deleteText}</p>
        <Form
          danger
          action={words.deleteAccount}
          send={({ password }) => ask('POST', '/me/deletion', { password })}
          done={leave}
        >
          <Username value={me.email} />
          <Field name="password" label={words.password} type="password" autocomplete="current-password" />
        </Form>
      </details>
    </Screen>
  );
}

function ChangeEmail({ sent }: { sent: () => void }): JSX.Element {
  return (
    <details>
      <summary>{words.changeEmail}</summary>
      <Form
        action={words.send}
        send={({ email, password }) => ask('POST', '/me/email', { email, password })}
        done={sent}
      >
        <Field name="email" label={words.email} type="email" autocomplete="email" />
        <Field name="password" label={words.password} type="password" autocomplete="current-password" />
      </Form>
    </details>
  );
}

export function NotFound(): JSX.Element {
  return (
    <Screen title={words.notFound}>
      <p>
        <a href="/" onClick={(event) => (event.preventDefault(), go('/'))}>
          {words.home}
        </a>
      </p>
    </Screen>
  );
}
