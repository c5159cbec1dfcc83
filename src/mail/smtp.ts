import { rootCertificates } from 'node:tls';

/** A mail server and how to speak with it. */
export interface SmtpServer {
  /** `smtp://` or `smtps://`, host and port. */
  readonly url: URL;
  readonly tls: 'required' | 'off';
  readonly login?: { readonly user: string; readonly password: string };
  /** PEM of CAs to trust in addition to the public ones. */
  readonly ca?: string;
  readonly timeoutMs: number;
}

export interface Letter {
  readonly from: { readonly name: string; readonly address: string };
  readonly to: readonly string[];
  readonly subject: string;
  readonly text: string;
  readonly html?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export type SmtpFailure = 'login' | 'tls' | 'refused' | 'unreachable' | 'ended';

export class SmtpError extends Error {
  readonly kind: SmtpFailure;

  constructor(kind: SmtpFailure, message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'SmtpError';
    this.kind = kind;
  }
}

/** The options of nodemailer. No part of a mail is ever read from a file or fetched. */
export function nodemailerLetter({ from, to, subject, text, html, headers }: Letter): object {
  return {
    from,
    to: [...to],
    envelope: { from: from.address, to: [...to] },
    subject,
    text,
    ...(html !== undefined && { html }),
    // RFC 3834: no out-of-office answers to it.
    headers: { 'Auto-Submitted': 'auto-generated', 'X-Auto-Response-Suppress': 'All', ...headers },
    disableFileAccess: true,
    disableUrlAccess: true,
  };
}

/** Resolves when the server has accepted the mail for all recipients. @throws SmtpError */
export async function sendBySmtp(server: SmtpServer, letter: Letter, signal: AbortSignal): Promise<void> {
  const { url, tls, login, ca, timeoutMs } = server;
  const secure = url.protocol === 'smtps:';
  // Loaded with the first mail, as the start of a process does not need it.
  const { createTransport } = await import('nodemailer');
  const transport = createTransport({
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? (secure ? 465 : 587) : Number(url.port),
    secure,
    requireTLS: !secure && tls === 'required',
    ignoreTLS: tls === 'off',
    ...(login !== undefined && { auth: { user: login.user, pass: login.password } }),
    ...(ca !== undefined && { tls: { ca: [...rootCertificates, ca] } }),
    connectionTimeout: timeoutMs,
    greetingTimeout: timeoutMs,
    socketTimeout: timeoutMs,
    dnsTimeout: timeoutMs,
  });
  try {
    // The library limits each wait but not their sum: a server that sends one byte now and then must also end.
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(2 * timeoutMs)]);
    const sent = await transport.sendMail({ ...nodemailerLetter(letter), signal: bounded });
    if (sent.rejected.length > 0)
      throw new SmtpError('refused', `it refused ${sent.rejected.map(String).join(', ')}`);
  } catch (error) {
    throw failureOf(error, signal.aborted);
  } finally {
    transport.close();
  }
}

function failureOf(error: unknown, ended: boolean): unknown {
  if (!(error instanceof Error) || error instanceof SmtpError) return error;
  const { code = '' } = error as NodeJS.ErrnoException;
  if (ended) return new SmtpError('ended', 'this process is stopping', error);
  const why = code === 'EABORT' ? 'it did not finish in time' : error.message;
  if (code === 'EAUTH' || code === 'ENOAUTH') return new SmtpError('login', why, error);
  if (code === 'ETLS' || /certificate|STARTTLS|SSL|TLS/i.test(error.message))
    return new SmtpError('tls', why, error);
  if (code === 'EENVELOPE' || code === 'EMESSAGE') return new SmtpError('refused', why, error);
  return new SmtpError('unreachable', why, error);
}
