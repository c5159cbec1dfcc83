import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sendBySmtp, SmtpError, type SmtpServer } from '../mail/smtp.ts';
import { AppConfigError, type AppConfig } from './config.ts';
import { Problem } from './http/problems.ts';
import type { AccountMail, MailKind, Services } from './http/services.ts';
import type { Language } from './languages.ts';
import { MAIL_TEXTS } from './mail-texts.ts';

/** Room for a password with its newline, or a chain of certificates. */
const MAX_FILE_BYTES = 1024 * 1024;

/** Mails of accounts, in the person's language. Nothing is queued: a mail that the server refused is not sent. */
export class Mailer implements AccountMail {
  readonly #config: AppConfig;
  readonly #server: SmtpServer;
  readonly #log: Services['log'];
  readonly #ending = new AbortController();

  constructor(config: AppConfig, server: SmtpServer, log: Services['log']) {
    this.#config = config;
    this.#server = server;
    this.#log = log;
  }

  async send(
    kind: MailKind,
    to: string,
    { link, language }: { readonly link?: string; readonly language: Language },
  ): Promise<void> {
    const { site_name: site, mail } = this.#config;
    const words = MAIL_TEXTS[language][kind];
    const fill = (text: string): string => text.replaceAll('SITE', site);
    const paragraphs = words.paragraphs.map(fill);
    const letter = {
      from: { name: site, address: mail.from },
      to: [to],
      subject: fill(words.subject),
      text: `${[...paragraphs, ...(link === undefined ? [] : [link])].join('\n\n')}\n`,
      html: htmlOf(paragraphs, link, words.action),
    };
    try {
      await sendBySmtp(this.#server, letter, this.#ending.signal);
    } catch (error) {
      if (!(error instanceof SmtpError)) throw error;
      // The address is personal data: it must not be in a log.
      this.#log(`the mail server ${this.#server.url.host} did not take a mail: ${error.message}`, {
        kind: error.kind,
      });
      throw new Problem('mail-unavailable', { retryAfterS: 60 });
    }
  }

  close(): void {
    this.#ending.abort();
  }
}

function htmlOf(paragraphs: readonly string[], link: string | undefined, action: string): string {
  const texts = paragraphs.map((each) => `<p>${escaped(each)}</p>`);
  if (link !== undefined) texts.push(`<p><a href="${escaped(link)}">${escaped(action)}</a></p>`);
  return `<!doctype html><meta charset="utf-8">${texts.join('')}`;
}

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

/** @throws AppConfigError `accounts-mail` */
export async function smtpServerOf({ mail }: AppConfig): Promise<SmtpServer> {
  const { smtp_user: user, smtp_password_file: passwordFile, smtp_ca_file: caFile } = mail;
  const password = user === undefined ? undefined : await passwordOf(passwordFile);
  return {
    url: new URL(mail.smtp_url),
    tls: mail.smtp_tls,
    timeoutMs: mail.timeout_ms,
    ...(user !== undefined && password !== undefined && { login: { user, password } }),
    ...(caFile !== undefined && { ca: await read(caFile) }),
  };
}

/** The unit puts /etc/bornemisza/smtp-password there, for this process only (systemd.exec(5), LoadCredential=). */
const CREDENTIAL = 'smtp-password';

async function passwordOf(file: string | undefined): Promise<string> {
  const { CREDENTIALS_DIRECTORY: directory } = process.env;
  const from = file ?? (directory === undefined ? undefined : join(directory, CREDENTIAL));
  const password = from === undefined ? '' : (await read(from)).replace(/\r?\n$/, '');
  if (password !== '') return password;
  throw new AppConfigError(
    'accounts-mail',
    'mail.smtp_user is set, and there is no password for it',
    'put it into /etc/bornemisza/smtp-password (chmod 600), then: systemctl restart bornemisza-app',
  );
}

async function read(file: string): Promise<string> {
  const next = `make it readable for the app tier: chown root:bornemisza-app ${file} && chmod 640 ${file}`;
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new AppConfigError(
      'accounts-mail',
      `cannot read ${file}: ${error.code ?? error.message}`,
      next,
      error,
    );
  });
  if (text.length > MAX_FILE_BYTES) throw new AppConfigError('accounts-mail', `${file} is too large`, next);
  return text;
}
