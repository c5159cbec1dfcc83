import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { systemClock } from './clock.ts';
import { loadConfig, pathsFor } from './config/config.ts';
import { hasNextStep, OperatorError } from './errors.ts';
import { ownUnit, reasonToEnd } from './process/goodbye.ts';
import { createLog, type Log } from './process/log.ts';
import type { Role } from './membership/types.ts';
import { Node } from './node/start.ts';
import { serviceManager } from './process/systemd.ts';
import { framesOf } from './process/stack.ts';

/** systemd.exec(5): EX_CONFIG, for errors that only a person can correct. */
const EXIT_CONFIG = 78;
const NEEDS_A_PERSON = new Set([
  'config-invalid',
  'config-missing',
  'config-identity-differs',
  'not-initialised',
  'self-revoked',
  'state-damaged',
  'state-file-damaged',
  'state-file-missing',
  'state-unfinished',
  'left',
  'usage',
]);
/** A stop that never ends must not keep the machine from shutting down. */
const STOP_TIMEOUT_MS = 10_000;

/** `bornemisza daemon --role ROLE`: runs until a signal ends it. The one place that ends the process. */
export async function runDaemon(argv: string[]): Promise<void> {
  const journal = process.env['JOURNAL_STREAM'] !== undefined;
  let log = createLog({ level: 'info', journal });
  try {
    const { role, root } = argumentsOf(argv);
    const paths = pathsFor(role, root);
    const config = await loadConfig(role, paths, 'lenient');
    log = createLog({ level: config.log.level, journal });
    await run(role, root, log, journal);
  } catch (error) {
    process.exit(report(log, error));
  }
}

async function run(role: Role, root: string, log: Log, journal: boolean): Promise<void> {
  const unit = ownUnit(await readFile('/proc/self/cgroup', 'utf8').catch(() => ''));
  let ending = false;
  const node = new Node(
    { role, paths: pathsFor(role, root) },
    {
      log,
      clock: systemClock,
      journal,
      serviceManager: serviceManager(process.env, (error) => log.debug({ err: error }, 'systemd-notify')),
      end: (code, why) => {
        if (ending) return;
        ending = true;
        log.error(why);
        setTimeout(() => process.exit(code), STOP_TIMEOUT_MS).unref();
        void node.close().finally(() => process.exit(code));
      },
    },
  );
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    if (ending) return;
    ending = true;
    setTimeout(() => process.exit(1), STOP_TIMEOUT_MS).unref();
    const goodbye = await reasonToEnd(signal === 'SIGTERM' ? unit : undefined);
    log.info({ signal, goodbye }, 'received a signal to end');
    await node.stop(goodbye);
    process.exit(0);
  };
  process.on('SIGTERM', (signal) => void stop(signal));
  process.on('SIGINT', (signal) => void stop(signal));
  process.on('SIGHUP', () => {
    node.reload().catch((error: unknown) => report(log, error));
  });
  // Impossible states: systemd starts us again, and the last good configuration goes on serving meanwhile.
  process.on('unhandledRejection', (error) => {
    reportBug(log, 'a bug: unhandled rejection', error);
    process.exit(1);
  });
  process.on('uncaughtException', (error) => {
    reportBug(log, 'a bug: uncaught exception', error);
    process.exit(1);
  });
  try {
    await node.start();
  } catch (error) {
    ending = true;
    await node.close().catch(() => undefined);
    throw error;
  }
}

function argumentsOf(argv: string[]): { role: Role; root: string } {
  const usage = (message: string): OperatorError =>
    new OperatorError('usage', message, 'bornemisza daemon --role app|db');
  try {
    const { values } = parseArgs({
      args: argv,
      options: { role: { type: 'string' }, root: { type: 'string', default: '' } },
    });
    if (values.role !== 'app' && values.role !== 'db') throw usage('--role must be app or db');
    return { role: values.role, root: values.root };
  } catch (error) {
    throw error instanceof OperatorError
      ? error
      : usage(error instanceof Error ? error.message : String(error));
  }
}

/** @returns the exit code */
function report(log: Log, error: unknown): number {
  if (!hasNextStep(error)) {
    reportBug(log, 'the daemon failed', error);
    return 1;
  }
  log.error({ code: error.code, next: error.next }, error.message);
  return NEEDS_A_PERSON.has(error.code) ? EXIT_CONFIG : 1;
}

function reportBug(log: Log, what: string, error: unknown): void {
  log.error({ err: error, next: 'report this with the lines that follow' }, what);
  for (const frame of framesOf(error)) log.error(frame);
}
