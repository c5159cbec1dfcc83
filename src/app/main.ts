/** The app tier: accounts, sessions, data and page, one process on each app node. `app.mjs ACCOUNTS.toml`. */
import { AppConfigError, loadAppConfig, loadAppSecrets } from './config.ts';
import { Mailer, smtpServerOf } from './mailer.ts';
import { startAppServer } from './server.ts';

/** systemd.exec(5): for what only a person can correct. */
const EXIT_CONFIG = 78;

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

try {
  await run(process.argv[2] ?? '/etc/bornemisza/accounts.toml');
} catch (error) {
  if (!(error instanceof AppConfigError)) throw error;
  log(3, `${error.message}; next: ${error.next}`, { code: error.code });
  process.exitCode = EXIT_CONFIG;
}
