import { join } from 'node:path';
import { sendBySmtp, SmtpError } from '../mail/smtp.ts';
import { AppConfigError, loadAppConfig } from './config.ts';
import { smtpServerOf } from './mailer.ts';

/** The result of the test, one line of JSON for `bornemisza accounts setup`. */
type Tried =
  | { readonly ok: true }
  | { readonly ok: false; readonly code: string; readonly message: string; readonly next: string };

type Failure = 'login' | 'tls' | 'refused' | 'timeout' | 'unreachable';
const FAILURES: Readonly<Record<Failure, { readonly code: string; readonly next: string }>> = {
  login: {
    code: 'accounts-mail-login',
    next: 'correct mail.smtp_user and its password; some providers want a password made for one application',
  },
  tls: {
    code: 'accounts-mail-tls',
    next: 'use the name in its certificate and a port with TLS (587, or smtps:// and 465), or set mail.smtp_ca_file',
  },
  refused: {
    code: 'accounts-mail-refused',
    next: 'allow the address in mail.from at the mail server, and correct the recipient',
  },
  timeout: {
    code: 'accounts-mail-timeout',
    next: 'check whether your provider allows connections to that port: many block 25, few block 587',
  },
  unreachable: {
    code: 'accounts-mail-unreachable',
    next: 'correct mail.smtp_url: host and port of the mail server',
  },
};

/**
 * Reads configuration and password like the unit's process, from systemd's credentials, and sends one mail if there is
 * a recipient. Never throws for a problem that a person can correct.
 */
export async function tryMail(directory: string, to: string | undefined): Promise<Tried> {
  try {
    const config = await loadAppConfig(join(directory, 'accounts.toml'));
    const server = await smtpServerOf(config);
    if (to === undefined) return { ok: true };
    const { site_name: name, public_url: url, mail } = config;
    const letter = {
      from: { name, address: mail.from },
      to: [to],
      subject: `${name} can send mail`,
      text: `This host sends the mails of accounts at ${url} with the settings of this mail.\n`,
    };
    await sendBySmtp(server, letter, new AbortController().signal);
    return { ok: true };
  } catch (error) {
    if (error instanceof AppConfigError) {
      const { code, message, next } = error;
      return { ok: false, code, message: message.replace(`${directory}/`, '/etc/bornemisza/'), next };
    }
    if (!(error instanceof SmtpError)) throw error;
    return { ok: false, ...FAILURES[failureKind(error)], message: error.message };
  }
}

function failureKind({ kind, cause, message }: SmtpError): Failure {
  const { code = '' } = (cause ?? {}) as NodeJS.ErrnoException;
  if (code === 'EABORT' || (code === 'ETIMEDOUT' && kind === 'unreachable')) return 'timeout';
  if (kind === 'unreachable' && /timeout|never received/i.test(message)) return 'timeout';
  return kind === 'ended' ? 'timeout' : kind;
}
