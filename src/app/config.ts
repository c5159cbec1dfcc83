import { readFile } from 'node:fs/promises';
import { parse, TomlError } from 'smol-toml';
import * as z from 'zod';

/** A setting that cannot be used: the problem and the next step. */
export class AppConfigError extends Error {
  readonly code: string;
  readonly next: string;

  constructor(code: string, message: string, next: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'AppConfigError';
    this.code = code;
    this.next = next;
  }
}

const Mail = z.strictObject({
  from: z.email(),
  smtp_url: z.string().regex(/^smtps?:\/\/[^/?#]+$/, 'is smtp://HOST:PORT or smtps://HOST:PORT'),
  smtp_tls: z.enum(['required', 'off']).default('required'),
  smtp_user: z.string().optional(),
  smtp_password_file: z.string().startsWith('/').optional(),
  smtp_ca_file: z.string().startsWith('/').optional(),
  /** Short, since the person waits for the mail server. */
  timeout_ms: z.int().min(1000).max(30_000).default(10_000),
});

const Schema = z.strictObject({
  /** The address that people type. Links in mails begin with it; it is never taken from a request. */
  public_url: z.string().regex(/^https:\/\/[^/?#]+\/?$/, 'is https://NAME without a path'),
  site_name: z.string().min(1).max(64).default('Notes'),
  port: z.int().min(1024).max(65_535).default(8090),
  registration: z.enum(['open', 'closed']).default('open'),
  password_min_length: z.int().min(8).max(128).default(12),
  quota_mb: z.int().min(1).max(100_000).default(50),
  web_root: z.string().startsWith('/').default('/usr/share/bornemisza/web'),
  database_url: z
    .string()
    .regex(/^http:\/\/127\.\d+\.\d+\.\d+:\d+$/)
    .default('http://127.0.0.1:5984'),
  /** Written by the daemon of this node: app keys and the application's account at CouchDB. */
  secrets_file: z.string().startsWith('/').default('/var/lib/bornemisza/accounts/secrets.json'),
  /** The socket on which the daemon of this node passes on the orders of `bornemisza accounts`. */
  operator_socket: z.string().startsWith('/').default('/run/bornemisza-app/operator.sock'),
  mail: Mail,
});

export type AppConfig = Readonly<z.infer<typeof Schema>>;

const Secrets = z.object({
  keys: z
    .array(z.object({ id: z.string().regex(/^[\w-]{1,32}$/), secret: z.string().regex(/^[0-9a-f]{64}$/) }))
    .min(1)
    .max(64),
  database: z.object({ user: z.string(), password: z.string() }),
});
export type AppSecrets = z.infer<typeof Secrets>;

const MAX_FILE_BYTES = 64 * 1024;

/** @throws AppConfigError `accounts-config` */
export async function loadAppConfig(file: string): Promise<AppConfig> {
  const next = `correct ${file}, then: systemctl restart bornemisza-app`;
  const text = await read(
    file,
    'accounts-file',
    'write it as /usr/share/doc/bornemisza-node/app.md shows, then: systemctl restart bornemisza-app',
  );
  try {
    return parseConfig(parse(text), file, next);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw new AppConfigError(
      'accounts-config',
      `${file}, line ${error.line}: ${firstLine(error)}`,
      next,
      error,
    );
  }
}

function parseConfig(value: unknown, file: string, next: string): AppConfig {
  const result = Schema.safeParse(value);
  if (result.success) return Object.freeze(result.data);
  const [first] = result.error.issues;
  const where = first?.path.join('.') ?? '';
  throw new AppConfigError(
    'accounts-config',
    `${file}: ${where === '' ? '' : `${where}: `}${first?.message}`,
    next,
  );
}

/** @throws AppConfigError `accounts-secrets` */
export async function loadAppSecrets(file: string): Promise<AppSecrets> {
  const next = 'start the daemon of this node: systemctl start bornemisza@app; then: bornemisza status';
  const text = await read(file, 'accounts-secrets', next);
  const parsed = Secrets.safeParse(jsonOf(text));
  if (!parsed.success)
    throw new AppConfigError('accounts-secrets', `${file} does not hold the secrets of the app tier`, next);
  return parsed.data;
}

async function read(file: string, code: string, next: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new AppConfigError(code, `cannot read ${file}: ${error.code ?? error.message}`, next, error);
  });
  if (text.length > MAX_FILE_BYTES)
    throw new AppConfigError(code, `${file} is larger than ${MAX_FILE_BYTES} bytes`, next);
  return text;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const firstLine = (error: Error): string => error.message.split('\n')[0] ?? '';
