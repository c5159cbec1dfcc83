import { open, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { runCommand } from '../../host/command.ts';
import {
  type Letter,
  nodemailerLetter,
  sendBySmtp,
  SmtpError,
  type SmtpFailure,
  type SmtpServer,
} from '../../mail/smtp.ts';
import type { Config } from '../config/config.ts';
import { OperatorError } from '../errors.ts';
import { oneLine } from '../process/log.ts';
import type { Message } from './message.ts';

export type NotifySettings = Config['notify'];

/** One way in which a message reaches people. */
export interface Channel {
  readonly name: 'mail' | 'webhook' | 'command';
  /** Its target, for people; never a secret, such as the path of a webhook. */
  readonly target: string;
  /**
   * Resolves when the other side has accepted the message, within the settings' timeout.
   *
   * @throws OperatorError or PluginError with a next step
   */
  send(message: Message, signal: AbortSignal): Promise<void>;
}

/** The limit of text from a program or server in our messages. */
const MAX_WORDS = 300;
/** Room for a password with its newline; a larger file is another file. */
const MAX_PASSWORD_BYTES = 1024;
const MAX_CA_BYTES = 1024 * 1024;
const MAX_OUTPUT_BYTES = 64 * 1024;
/** Mode bits set-uid and set-gid. */
const SET_ID = 0o6000;

/** The channels that the settings name, in order; none: this node sends nothing. */
export function channelsOf(settings: NotifySettings): Channel[] {
  return [mailChannel(settings), webhookChannel(settings), commandChannel(settings)].filter(
    (channel) => channel !== undefined,
  );
}

// --- mail ---

function mailChannel(settings: NotifySettings): Channel | undefined {
  const { mail_to: to, mail_from: from, sendmail, smtp_url: url } = settings;
  if (to.length === 0 || from === undefined) return undefined;
  if (sendmail !== undefined) {
    return {
      name: 'mail',
      target: `${to.join(', ')} through ${sendmail}`,
      send: (message, signal) => bySendmail(message, { from, to, program: sendmail, settings, signal }),
    };
  }
  const server = URL.parse(url ?? '');
  if (server === null) return undefined;
  return {
    name: 'mail',
    target: `${to.join(', ')} through ${server.host}`,
    send: (message, signal) => bySmtp(message, { from, to, server, settings, signal }),
  };
}

interface Mailing {
  readonly from: string;
  readonly to: readonly string[];
  readonly settings: NotifySettings;
  readonly signal: AbortSignal;
}

function letter({ subject, text }: Message, { from, to }: Mailing): Letter {
  return { from: { name: 'Bornemisza', address: from }, to, subject, text };
}

async function bySmtp(message: Message, mailing: Mailing & { readonly server: URL }): Promise<void> {
  const { server, settings, signal } = mailing;
  const { smtp_user: user, smtp_password_file: passwordFile, smtp_ca_file: caFile } = settings;
  const password = passwordFile === undefined ? undefined : await readPassword(passwordFile);
  const ca = caFile === undefined ? undefined : await readBounded(caFile, MAX_CA_BYTES);
  const smtp: SmtpServer = {
    url: server,
    tls: settings.smtp_tls,
    timeoutMs: settings.timeout_ms,
    ...(user !== undefined && password !== undefined && { login: { user, password } }),
    ...(ca !== undefined && { ca }),
  };
  await sendBySmtp(smtp, letter(message, mailing), signal).catch((error: unknown) => {
    throw error instanceof SmtpError ? smtpFailure(error, server.host) : error;
  });
}

/** By kind of failure: code and next step. */
const SMTP_FAILURES: Readonly<Record<SmtpFailure, { code: string; what: string; next: string }>> = {
  login: {
    code: 'notify-smtp-login',
    what: 'refuses the login',
    next: 'correct notify.smtp_user and the file of notify.smtp_password_file, then: bornemisza notify test',
  },
  tls: {
    code: 'notify-smtp-tls',
    what: 'has no TLS certificate that is trusted here',
    next:
      'use the name that its certificate carries, or name its CA in notify.smtp_ca_file; a server on this ' +
      'host: smtp_tls = "off"',
  },
  refused: {
    code: 'notify-smtp-refused',
    what: 'refuses the mail',
    next:
      'correct notify.mail_from and notify.mail_to, or let the server relay for this host; then: ' +
      'bornemisza notify test',
  },
  unreachable: {
    code: 'notify-smtp-unreachable',
    what: 'cannot be used',
    next: 'correct notify.smtp_url, or make it reachable; it is tried again',
  },
  ended: { code: 'notify-smtp-unreachable', what: 'cannot be used', next: 'it is tried again by itself' },
};

function smtpFailure(error: SmtpError, host: string): OperatorError {
  const { code, what, next } = SMTP_FAILURES[error.kind];
  const why = error.kind === 'ended' ? 'the daemon is stopping' : wordsOf(error.message);
  return new OperatorError(code, `the mail server ${host} ${what}: ${why}`, next, { cause: error });
}

/** The library creates the mail; the program runs bounded, and its standard error has the reason of a failure. */
async function bySendmail(message: Message, mailing: Mailing & { readonly program: string }): Promise<void> {
  const { program, from, to, settings, signal } = mailing;
  if (await needsRights(program)) {
    throw new OperatorError(
      'notify-sendmail-rights',
      `${program} needs further rights, as Exim’s and Postfix’s do, and the daemon’s unit allows none`,
      'use SMTP to the mail server: smtp_url = "smtp://127.0.0.1:25" and smtp_tls = "off" instead ' +
        'of sendmail; then: bornemisza notify test',
    );
  }
  const { createTransport } = await import('nodemailer');
  const { message: bytes } = await createTransport({
    streamTransport: true,
    buffer: true,
    newline: 'unix',
  }).sendMail(nodemailerLetter(letter(message, mailing)));
  // Addresses cannot begin with a hyphen: the configuration refuses it.
  const { code, stderr, stdout } = await runCommand(program, ['-i', '-f', from, ...to], {
    timeoutMs: settings.timeout_ms,
    maxOutputBytes: MAX_OUTPUT_BYTES,
    input: Buffer.isBuffer(bytes) ? bytes.toString('utf8') : '',
    signal,
    missingNext: 'correct notify.sendmail, or use notify.smtp_url',
  });
  if (code === 0) return;
  throw new OperatorError(
    'notify-sendmail-failed',
    `${program} ended with ${code}: ${wordsOf(stderr || stdout) || 'it gives no reason'}`,
    'correct what it names (its files must be readable for user bornemisza), then: bornemisza notify test',
  );
}

/**
 * Exim's sendmail is set-uid. Postfix's passes the mail to postdrop, which is set-gid: if postdrop may not write to its
 * spool, it tries again every ten seconds for ever, in its own session, where our kill does not reach it.
 */
async function needsRights(program: string): Promise<boolean> {
  const file = await realpath(program).catch(() => program);
  const files = basename(file).startsWith('sendmail') ? [file, join(dirname(file), 'postdrop')] : [file];
  const modes = await Promise.all(
    files.map((each) =>
      stat(each).then(
        ({ mode }) => mode,
        () => 0,
      ),
    ),
  );
  return modes.some((mode) => (mode & SET_ID) !== 0);
}

/** @throws OperatorError `notify-file-unreadable`, `notify-password-exposed` */
async function readPassword(file: string): Promise<string> {
  const text = await readBounded(file, MAX_PASSWORD_BYTES, 0o007);
  return text.replace(/\r?\n$/, '');
}

async function readBounded(file: string, maxBytes: number, forbiddenMode = 0): Promise<string> {
  const handle = await open(file, 'r').catch((error: NodeJS.ErrnoException) => {
    throw unreadable(file, error.code ?? error.message, error);
  });
  try {
    const { mode, size } = await handle.stat();
    if ((mode & forbiddenMode) !== 0) {
      throw new OperatorError(
        'notify-password-exposed',
        `${file} holds a password, and every user of this host can read it`,
        `chown root:bornemisza ${file} && chmod 640 ${file}`,
      );
    }
    if (size > maxBytes) throw unreadable(file, `it is larger than ${maxBytes} bytes`);
    return await handle.readFile('utf8');
  } finally {
    await handle.close();
  }
}

function unreadable(file: string, why: string, cause?: Error): OperatorError {
  return new OperatorError(
    'notify-file-unreadable',
    `cannot read ${file}: ${why}`,
    `make it readable for the daemon: chown root:bornemisza ${file} && chmod 640 ${file}`,
    { cause },
  );
}

// --- webhook ---

function webhookChannel({ webhook_url: url, timeout_ms: timeoutMs }: NotifySettings): Channel | undefined {
  const parsed = URL.parse(url ?? '');
  if (parsed === null) return undefined;
  return {
    name: 'webhook',
    target: parsed.origin,
    send: (message, signal) => post(parsed, message, timeoutMs, signal),
  };
}

async function post(url: URL, message: Message, timeoutMs: number, signal: AbortSignal): Promise<void> {
  // A chat server shows `text`. A redirect could lead anywhere, so none is followed.
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'user-agent': 'bornemisza' },
    body: JSON.stringify(message.payload),
    redirect: 'manual',
    signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
  }).catch((error: unknown) => {
    throw new OperatorError(
      'notify-webhook-unreachable',
      `the webhook at ${url.origin} cannot be reached: ${reasonOf(error)}`,
      'correct notify.webhook_url, or make it reachable; it is tried again',
      { cause: error },
    );
  });
  await answer.body?.cancel().catch(() => undefined);
  if (answer.ok) return;
  throw new OperatorError(
    'notify-webhook-refused',
    `the webhook at ${url.origin} answers ${answer.status}`,
    'correct notify.webhook_url: it can have expired, or need another form of message',
  );
}

/** fetch wraps the cause in an error "fetch failed". */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return 'no answer in time';
  const { cause } = error;
  return wordsOf(
    cause instanceof Error ? ((cause.message || (cause as NodeJS.ErrnoException).code) ?? '') : error.message,
  );
}

// --- command ---

function commandChannel({ command, timeout_ms: timeoutMs }: NotifySettings): Channel | undefined {
  const [program, ...args] = command;
  if (program === undefined) return undefined;
  return {
    name: 'command',
    target: program,
    send: async (message, signal) => {
      const { code, stdout, stderr } = await runCommand(program, args, {
        timeoutMs,
        maxOutputBytes: MAX_OUTPUT_BYTES,
        input: `${JSON.stringify(message.payload)}\n`,
        signal,
        missingNext: 'correct notify.command',
      });
      if (code === 0) return;
      throw new OperatorError(
        'notify-command-failed',
        `${program} ended with ${code}: ${wordsOf(stderr || stdout) || 'it gives no reason'}`,
        `run it by hand as the daemon does: bornemisza notify test, then journalctl -u 'bornemisza@*'`,
      );
    },
  };
}

/** Foreign output as part of one line. */
function wordsOf(text: string): string {
  return oneLine(text.trim()).slice(0, MAX_WORDS);
}
