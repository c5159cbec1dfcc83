/** The app tier: accounts, sessions, data and page, one process on each app node. `app.mjs ACCOUNTS.toml`. */
import { AppConfigError, type AppSecrets, loadAppConfig, loadAppSecrets } from './config.ts';
import { Mailer, smtpServerOf } from './mailer.ts';
import { type AppServer, startAppServer } from './server.ts';
import { tryMail } from './try-mail.ts';

/** systemd.exec(5): for problems that only a person can correct. */
const EXIT_CONFIG = 78;
/**
 * For problems that end by themselves, such as missing secrets on a node that joins: systemd starts the process again.
 */
const EXIT_LATER = 75;
/** A removed node knows the old keys: they are valid here for so much longer at most. */
const LOOK_MS = 5000;

/** One line to the journal; `<N>` is its priority (sd-daemon(3)). */
function log(priority: number, message: string, facts: Readonly<Record<string, unknown>> = {}): void {
  const more = Object.keys(facts).length === 0 ? '' : ` ${JSON.stringify(facts)}`;
  process.stderr.write(`<${priority}>${message.replaceAll('\n', ' ')}${more}\n`);
}

async function run(file: string): Promise<void> {
  const config = await loadAppConfig(file);
  const secrets = await loadAppSecrets(config.secrets_file);
  const warn = (message: string, facts?: Readonly<Record<string, unknown>>): void => log(4, message, facts);
  const mail = new Mailer(config, await smtpServerOf(config), warn);
  const server = await startAppServer(config, secrets, { mail, nowMs: Date.now, log: warn });
  log(6, `accounts and page on 127.0.0.1:${server.port} for ${config.public_url}`);
  followSecrets(config.secrets_file, secrets, server, warn);
  let stopping = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (stopping) return;
      stopping = true;
      log(6, 'draining: health answers 503, then the port closes');
      void server.close().then(() => {
        mail.close();
        process.exit(0);
      });
    });
  }
}

/** The daemon of this node writes the file again when keys were made. If it cannot be read, nothing changes. */
function followSecrets(
  file: string,
  first: AppSecrets,
  server: AppServer,
  warn: (message: string, facts?: Readonly<Record<string, unknown>>) => void,
): void {
  let known = JSON.stringify(first);
  let said = '';
  const look = async (): Promise<void> => {
    try {
      const now = await loadAppSecrets(file);
      said = '';
      if (JSON.stringify(now) === known) return;
      server.renew(now);
      known = JSON.stringify(now);
      log(6, 'the app tier has new keys: everybody must sign in again');
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (why !== said) warn(`${why}; the former keys stay in use`);
      said = why;
    }
  };
  setInterval(() => void look(), LOOK_MS).unref();
}

/** `app.mjs --try [ADDRESS]`: `bornemisza accounts setup` calls this before it writes anything. */
async function tryOut(to: string | undefined): Promise<void> {
  const tried = await tryMail(process.env['CREDENTIALS_DIRECTORY'] ?? '/etc/bornemisza', to);
  process.stdout.write(`${JSON.stringify(tried)}\n`);
  process.exitCode = tried.ok ? 0 : 1;
}

try {
  const [first = '/etc/bornemisza/accounts.toml', second] = process.argv.slice(2);
  await (first === '--try' ? tryOut(second) : run(first));
} catch (error) {
  if (!(error instanceof AppConfigError)) throw error;
  log(3, `${error.message}; next: ${error.next}`, { code: error.code });
  process.exitCode = error.code === 'accounts-secrets' ? EXIT_LATER : EXIT_CONFIG;
}
