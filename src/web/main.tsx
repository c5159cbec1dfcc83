import { type JSX, render } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { ask, type Me } from './api.ts';
import { Link, Screen } from './form.tsx';
import { NotesScreen } from './notes.tsx';
import { go, placeNow } from './router.ts';
import {
  Account,
  AskForMail,
  ChoosePassword,
  ConfirmEmail,
  NewPassword,
  NotFound,
  SignIn,
} from './screens.tsx';
import { keep, kept } from './store.ts';
import { language, words } from './words.ts';

/** Who is signed in; `undefined`: not known yet. */
type Who = Me | null | undefined;

function App(): JSX.Element {
  const [place, setPlace] = useState(placeNow);
  const [me, setMe] = useState<Who>(undefined);
  const look = async (): Promise<void> => {
    const answer = await ask<Me>('GET', '/me');
    if (answer.ok) {
      void keep('me', answer.body);
      setMe(answer.body);
    } else setMe(answer.status === 401 ? null : ((await kept<Me>('me')) ?? null));
  };
  useEffect(() => {
    const moved = (): void => setPlace(placeNow());
    addEventListener('popstate', moved);
    void look();
    return () => removeEventListener('popstate', moved);
  }, []);
  const home = (): void => {
    go('/');
    void look();
  };
  const out = (): void => {
    setMe(null);
    go('/');
  };
  return (
    <>
      <a class="skip" href="#content">
        {words.skip}
      </a>
      <header>
        <nav>
          <Link to="/">{words.notes}</Link>
          {me ? <Link to="/account">{words.account}</Link> : <Link to="/register">{words.register}</Link>}
        </nav>
      </header>
      <Route path={place.path} token={place.token} me={me} home={home} out={out} look={() => void look()} />
    </>
  );
}

interface RouteProps {
  readonly path: string;
  readonly token: string;
  readonly me: Who;
  readonly home: () => void;
  readonly out: () => void;
  readonly look: () => void;
}

function Route({ path, token, me, home, out, look }: RouteProps): JSX.Element {
  if (path === '/register') return <AskForMail key={path} kind="register" />;
  if (path === '/forgotten') return <AskForMail key={path} kind="forgotten" />;
  if (path === '/choose-password') return <ChoosePassword token={token} signedIn={home} />;
  if (path === '/new-password') return <NewPassword token={token} />;
  if (path !== '/' && path !== '/account' && path !== '/confirm-email') return <NotFound />;
  if (me === undefined) return <Screen title={words.loading}>{null}</Screen>;
  if (me === null) return <SignIn signedIn={look} />;
  if (path === '/confirm-email') return <ConfirmEmail token={token} signedIn={home} />;
  return path === '/account' ? (
    <Account me={me} changed={look} gone={out} />
  ) : (
    <NotesScreen signedOut={out} />
  );
}

document.documentElement.lang = language;
const root = document.getElementById('app');
if (root !== null) render(<App />, root);

// The only string that becomes code: this page's own worker (Trusted Types refuse any other).
const policy = (
  globalThis as {
    trustedTypes?: {
      createPolicy: (name: string, rules: object) => { createScriptURL: (url: string) => string };
    };
  }
).trustedTypes?.createPolicy('worker', { createScriptURL: () => '/sw.js' });
void navigator.serviceWorker?.register(policy?.createScriptURL('') ?? '/sw.js').catch(() => undefined);
