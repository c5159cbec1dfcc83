import { createRoute, type OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import type { Account } from '../accounts/account.ts';
import { type MailAddress, parseAddress } from '../accounts/address.ts';
import { type MailToken, readMailToken, signMailToken } from '../accounts/mail-token.ts';
import { passwordProblem } from '../accounts/password-rules.ts';
import { type Language, languageOf } from '../languages.ts';
import { passwordText } from '../password-texts.ts';
import { answers, json } from './describe.ts';
import { Problem } from './problems.ts';
import type { MailKind, Services } from './services.ts';
import { meOf, startSession } from './sessions.ts';
import { AccountBody, EmailBody, Me, PasswordByTokenBody } from './shapes.ts';

/** Registration and forgotten passwords: everything that works without a session. */
export function addAccountRoutes(app: OpenAPIHono, services: Services): void {
  app.openapi(
    createRoute({
      method: 'post',
      path: '/api/registrations',
      summary: 'Send a link that creates an account. The answer does not show whether one exists.',
      request: json(EmailBody),
      responses: answers(
        { 202: 'The mail server accepted a mail.' },
        'registration-closed',
        'mail-unavailable',
      ),
    }),
    async (c) => {
      if (services.config.registration === 'closed') throw new Problem('registration-closed');
      await mailTo(services, c, addressIn(c.req.valid('json').email), 'register');
      return c.json({}, 202);
    },
  );
  app.openapi(
    createRoute({
      method: 'post',
      path: '/api/password-resets',
      summary: 'Send a link that sets a new password. The answer does not show whether an account exists.',
      request: json(EmailBody),
      responses: answers({ 202: 'The mail server accepted a mail.' }, 'mail-unavailable'),
    }),
    async (c) => {
      await mailTo(services, c, addressIn(c.req.valid('json').email), 'reset');
      return c.json({}, 202);
    },
  );
  app.openapi(
    createRoute({
      method: 'post',
      path: '/api/accounts',
      summary: 'Create the account that a mailed link allows, and sign in.',
      request: json(AccountBody),
      responses: answers(
        { 201: Me },
        'link-expired',
        'already-confirmed',
        'password-unfit',
        'databases-disagree',
      ),
    }),
    async (c) => {
      const { token, password } = c.req.valid('json');
      const account = await confirm(services, token, password);
      startSession(services, c, account);
      return c.json(await meOf(services, account), 201);
    },
  );
  app.openapi(
    createRoute({
      method: 'put',
      path: '/api/password',
      summary: 'Set a new password by a mailed link. Ends all sessions.',
      request: json(PasswordByTokenBody),
      responses: answers({ 204: 'The password is set.' }, 'link-expired', 'password-unfit'),
    }),
    async (c) => {
      const { token, password } = c.req.valid('json');
      await resetPassword(services, token, password, languageOf(c));
      return c.body(null, 204);
    },
  );
}

/** @throws Problem `invalid-request` */
export function addressIn(text: string): MailAddress {
  const address = parseAddress(text);
  if (address !== undefined) return address;
  const detail = { en: 'This is not an e-mail address.', de: 'Das ist keine E-Mail-Adresse.' };
  throw new Problem('invalid-request', { errors: [{ pointer: '/email', detail }] });
}

/** Does the same work whether there is an account or not, so that the time of the answer shows nothing. */
async function mailTo(
  services: Services,
  c: Context,
  address: MailAddress,
  what: 'register' | 'reset',
): Promise<void> {
  const { accounts } = services;
  const holder = await accounts.holderOf(address.identity);
  await sendOnce(services, c, address, letterFor(what, address, holder.account));
}

type AccountLetter = readonly [kind: MailKind, token: MailToken | undefined, to: string];

/**
 * Limits the mails to one address, whoever asks for them. The answer to a refused request is the same as to a sent one.
 */
export async function sendOnce(
  services: Services,
  c: Context,
  { identity }: MailAddress,
  [kind, token, to]: AccountLetter,
): Promise<void> {
  const { accounts, mail } = services;
  const notedMs = await accounts.noteMail(identity);
  if (notedMs === undefined) return;
  const link = token === undefined ? undefined : linkFor(services, token);
  try {
    await mail.send(kind, to, { language: languageOf(c), ...(link !== undefined && { link }) });
  } catch (error) {
    await accounts.forgetMail(identity, notedMs);
    throw error;
  }
}

export function letterFor(
  what: 'register' | 'reset',
  address: MailAddress,
  account: Account | undefined,
): AccountLetter {
  if (account?.disabled === true) return ['disabled', undefined, account.email];
  if (account !== undefined) {
    const token = { purpose: 'reset', account: account.name, epoch: account.epoch } as const;
    return [what === 'register' ? 'taken' : 'reset', token, account.email];
  }
  if (what === 'reset') return ['no-account', undefined, address.deliver];
  return ['confirm', { purpose: 'register', email: address.deliver }, address.deliver];
}

const PAGES = {
  register: 'choose-password',
  reset: 'new-password',
  'change-email': 'confirm-email',
} as const;

/** The token is in the fragment, which no server, log or Referer sees. */
function linkFor({ config, keys, nowMs }: Services, token: MailToken): string {
  return `${new URL(config.public_url).origin}/${PAGES[token.purpose]}#${signMailToken(keys, token, nowMs())}`;
}

async function confirm(services: Services, text: string, password: string): Promise<Account> {
  const { accounts, hashes, keys, nowMs } = services;
  const token = readMailToken(keys, text, nowMs());
  if (token?.purpose !== 'register') throw new Problem('link-expired');
  const address = addressIn(token.email);
  mustBeFit(services, password, address.deliver);
  const holder = await accounts.holderOf(address.identity);
  if (holder.account !== undefined) {
    // If a request was cut off, the same link with the same password completes it, at any node.
    const { epoch, secret, disabled } = holder.account;
    if (epoch === 0 && !disabled && (await hashes.verify(password, async () => secret)))
      return holder.account;
    throw new Problem('already-confirmed');
  }
  const account: Account = {
    name: holder.name,
    email: address.deliver,
    epoch: 0,
    secret: await hashes.hash(password, `${holder.name} 0`),
    signedOut: [],
    keyId: keys.newestId,
    disabled: false,
  };
  await accounts.create(address.identity, holder, account);
  // Another confirmation at the same moment may have won.
  const now = await accounts.fresh(account.name);
  if (now === undefined || now.disabled || !(await hashes.verify(password, async () => now.secret)))
    throw new Problem('already-confirmed');
  return now;
}

async function resetPassword(
  services: Services,
  text: string,
  password: string,
  language: Language,
): Promise<void> {
  const { accounts, hashes, keys, nowMs, mail } = services;
  const token = readMailToken(keys, text, nowMs());
  if (token?.purpose !== 'reset') throw new Problem('link-expired');
  const account = await accounts.fresh(token.account);
  const isOpen = account !== undefined && account.epoch === token.epoch && !account.disabled;
  if (!isOpen) throw new Problem('link-expired');
  mustBeFit(services, password, account.email);
  const changed = await accounts.change(account.name, await withPassword(hashes, password, account));
  if (changed === undefined) throw new Problem('link-expired');
  // A mail that cannot be sent does not undo the change.
  await mail.send('password-changed', account.email, { language }).catch(() => undefined);
}

/** A change that is valid only while the account is enabled and at this epoch: a link and an old password work once. */
export async function withPassword(
  hashes: Services['hashes'],
  password: string,
  { name, epoch }: Pick<Account, 'name' | 'epoch'>,
): Promise<(account: Account) => Account | undefined> {
  const secret = await hashes.hash(password, `${name} ${epoch + 1}`);
  return (now) =>
    now.epoch === epoch && !now.disabled ? { ...now, epoch: epoch + 1, secret, signedOut: [] } : undefined;
}

/** @throws Problem `password-unfit` */
export function mustBeFit(
  { config }: Services,
  password: string,
  email: string,
  pointer = '/password',
): void {
  const problem = passwordProblem(password, {
    minLength: config.password_min_length,
    email,
    siteName: config.site_name,
  });
  if (problem === undefined) return;
  const detail = passwordText(problem, config.password_min_length);
  throw new Problem('password-unfit', { detail, errors: [{ pointer, detail }] });
}
