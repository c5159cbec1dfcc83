import { createRoute, type OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { type Account, withSignedOut } from '../accounts/account.ts';
import { CLEAR_COOKIE, sessionEndMs } from '../accounts/cookie.ts';
import { readMailToken } from '../accounts/mail-token.ts';
import { languageOf } from '../languages.ts';
import { addressIn, letterFor, mustBeFit, sendOnce, withPassword } from './accounts.ts';
import { answers, json } from './describe.ts';
import { networkOf } from './limits.ts';
import { Problem } from './problems.ts';
import type { Services } from './services.ts';
import { isKnownDevice, meOf, rememberDevice, signedIn, startSession } from './sessions.ts';
import { EmailChangeBody, Me, PasswordBody, PasswordChangeBody, SignInBody, TokenBody } from './shapes.ts';

/** Sessions, and what a signed-in person does with their own account. */
export function addMeRoutes(app: OpenAPIHono, services: Services): void {
  addSessionRoutes(app, services);
  addOwnRoutes(app, services);
  addEmailRoutes(app, services);
}

function addSessionRoutes(app: OpenAPIHono, services: Services): void {
  const { accounts, nowMs } = services;
  app.openapi(
    createRoute({
      method: 'post',
      path: '/api/session',
      summary: 'Sign in.',
      request: json(SignInBody),
      responses: answers({ 200: Me }, 'wrong-credentials', 'too-many-requests', 'busy'),
    }),
    async (c) => {
      const { email, password } = c.req.valid('json');
      const account = await authenticate(services, c, { email, password, otherwise: 'wrong-credentials' });
      startSession(services, c, account);
      return c.json(await meOf(services, account), 200);
    },
  );
  app.openapi(
    createRoute({
      method: 'delete',
      path: '/api/session',
      summary: 'Sign out here: the session ends at every node.',
      responses: answers({ 204: 'Signed out.' }),
    }),
    async (c) => {
      const { session } = await signedIn(services, c);
      await accounts.change(session.account, (now) =>
        withSignedOut(now, session.id, sessionEndMs(session), nowMs()),
      );
      c.header('set-cookie', CLEAR_COOKIE);
      return c.body(null, 204);
    },
  );
  app.openapi(
    createRoute({
      method: 'delete',
      path: '/api/sessions',
      summary: 'Sign out everywhere.',
      responses: answers({ 204: 'All sessions have ended.' }, 'not-signed-in'),
    }),
    async (c) => {
      const { session } = await signedIn(services, c);
      await accounts.change(session.account, (now) => ({ ...now, epoch: now.epoch + 1, signedOut: [] }));
      c.header('set-cookie', CLEAR_COOKIE);
      return c.body(null, 204);
    },
  );
}

function addOwnRoutes(app: OpenAPIHono, services: Services): void {
  app.openapi(
    createRoute({
      method: 'get',
      path: '/api/me',
      summary: 'Who is signed in. Services of your own ask here, with the Cookie header of the request.',
      responses: answers({ 200: Me }, 'not-signed-in'),
    }),
    async (c) => c.json(await meOf(services, (await signedIn(services, c)).account), 200),
  );
  app.openapi(
    createRoute({
      method: 'put',
      path: '/api/me/password',
      summary: 'Change the password. Other sessions end.',
      request: json(PasswordChangeBody),
      responses: answers(
        { 204: 'The password is changed.' },
        'not-signed-in',
        'wrong-password',
        'password-unfit',
      ),
    }),
    async (c) => {
      const body = c.req.valid('json');
      const account = await reauthenticated(services, c, body.old);
      mustBeFit(services, body.new, account.email, '/new');
      const change = await withPassword(services.hashes, body.new, account);
      const changed = await services.accounts.change(account.name, change);
      if (changed === undefined) throw new Problem('not-signed-in');
      startSession(services, c, changed);
      await services.mail
        .send('password-changed', account.email, { language: languageOf(c) })
        .catch(() => undefined);
      return c.body(null, 204);
    },
  );
  app.openapi(
    createRoute({
      method: 'post',
      path: '/api/me/deletion',
      summary: 'Delete the account and all its data.',
      request: json(PasswordBody),
      responses: answers(
        { 204: 'The account is deleted.' },
        'not-signed-in',
        'wrong-password',
        'databases-disagree',
      ),
    }),
    async (c) => {
      const account = await reauthenticated(services, c, c.req.valid('json').password);
      await services.accounts.remove(account);
      c.header('set-cookie', CLEAR_COOKIE);
      return c.body(null, 204);
    },
  );
}

function addEmailRoutes(app: OpenAPIHono, services: Services): void {
  app.openapi(
    createRoute({
      method: 'post',
      path: '/api/me/email',
      summary: 'Send a link to a new address.',
      request: json(EmailChangeBody),
      responses: answers(
        { 202: 'The mail server accepted a mail.' },
        'not-signed-in',
        'wrong-password',
        'mail-unavailable',
      ),
    }),
    async (c) => {
      const { email, password } = c.req.valid('json');
      const account = await reauthenticated(services, c, password);
      const address = addressIn(email);
      const holder = await services.accounts.holderOf(address.identity);
      const isTaken = holder.account !== undefined && holder.account.name !== account.name;
      const { name, epoch, email: from } = account;
      const token = { purpose: 'change-email', account: name, epoch, from, email: address.deliver } as const;
      const own = ['change-email', token, address.deliver] as const;
      await sendOnce(services, c, address, isTaken ? letterFor('register', address, holder.account) : own);
      return c.json({}, 202);
    },
  );
  app.openapi(
    createRoute({
      method: 'put',
      path: '/api/me/email',
      summary: 'Confirm the new address that a mailed link names.',
      request: json(TokenBody),
      responses: answers(
        { 204: 'The address is changed.' },
        'not-signed-in',
        'link-expired',
        'address-taken',
      ),
    }),
    async (c) => {
      const { account } = await signedIn(services, c);
      const token = readMailToken(services.keys, c.req.valid('json').token, services.nowMs());
      const isOwn = token?.purpose === 'change-email' && token.account === account.name;
      if (!isOwn || token.epoch !== account.epoch || token.from !== account.email)
        throw new Problem('link-expired');
      const from = addressIn(account.email).identity;
      const next = { ...account, email: token.email, epoch: account.epoch + 1 };
      const moved = await services.accounts.move(next, from, addressIn(token.email).identity);
      if (moved === 'taken') throw new Problem('address-taken');
      if (moved === 'ended') throw new Problem('link-expired');
      startSession(services, c, next);
      // The old address gets a mail, so that nobody with a stolen session can take an account unnoticed.
      await services.mail
        .send('email-changed', account.email, { language: languageOf(c) })
        .catch(() => undefined);
      return c.body(null, 204);
    },
  );
}

/** Asks for the person's password again before a change that cannot be undone. */
async function reauthenticated(services: Services, c: Context, password: string): Promise<Account> {
  const { account } = await signedIn(services, c);
  return authenticate(services, c, { email: account.email, password, otherwise: 'wrong-password' });
}

/** @throws Problem `otherwise`, `too-many-requests` */
async function authenticate(
  services: Services,
  c: Context,
  {
    email,
    password,
    otherwise,
  }: { email: string; password: string; otherwise: 'wrong-credentials' | 'wrong-password' },
): Promise<Account> {
  const { accounts, hashes, limits, nowMs } = services;
  const address = addressIn(email);
  const network = networkOf(c.req.header('x-forwarded-for'), 'local');
  const key = `${address.identity} ${network}`;
  // Attempts of strangers do not block a browser that signed in to this account before.
  const strangersMs = isKnownDevice(services, c, address.identity)
    ? 0
    : limits.strangers.waitMs(address.identity, nowMs());
  const waitMs = Math.max(limits.failures.waitMs(key, nowMs()), strangersMs);
  if (waitMs > 0) throw new Problem('too-many-requests', { retryAfterS: waitMs / 1000 });
  let account: Account | undefined;
  const isRight = await hashes.verify(password, async () => {
    ({ account } = await accounts.holderOf(address.identity));
    return account?.secret;
  });
  if (account !== undefined && isRight && !account.disabled) {
    limits.failures.clear(key);
    rememberDevice(services, c, address.identity);
    return account;
  }
  limits.failures.add(key, nowMs());
  limits.strangers.add(address.identity, nowMs());
  throw new Problem(otherwise);
}
