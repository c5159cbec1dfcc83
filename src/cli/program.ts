import { addAccounts } from './commands/accounts.ts';
import { addAuthority } from './commands/authority.ts';
import { addCertificate } from './commands/certificate.ts';
import { addConfig, addReload } from './commands/config.ts';
import { addDebug } from './commands/debug.ts';
import { addDns } from './commands/dns.ts';
import { addDoctor } from './commands/doctor.ts';
import { addGuards, addLeave, addMaintenance, addRemove } from './commands/duty.ts';
import { addEvents } from './commands/events.ts';
import { addExplain } from './commands/explain.ts';
import { addFirewall } from './commands/firewall.ts';
import { addFloating } from './commands/floating.ts';
import { addInit } from './commands/init.ts';
import { addJoin } from './commands/join.ts';
import { addLog } from './commands/log.ts';
import { addMembers } from './commands/members.ts';
import { addNotify } from './commands/notify.ts';
import { addPing } from './commands/ping.ts';
import { addPlan } from './commands/plan.ts';
import { addComplete, addCompletion, addDaemon, addVersion } from './commands/program-words.ts';
import { addServices } from './commands/services.ts';
import { addSite } from './commands/site.ts';
import { addStatus } from './commands/status.ts';
import { addTop } from './commands/top.ts';
import { addToken } from './commands/token.ts';
import { addUpgrade } from './commands/upgrade.ts';
import { addWait } from './commands/wait.ts';
import { addWeb } from './commands/web.ts';
import { EXIT_MEANINGS } from './failure.ts';
import type { Io } from './io.ts';
import { Verb } from './verb.ts';
import { VERSION } from '../daemon/version.ts';

/** The whole command tree, in the order in which a founder meets it. */
export function buildProgram(io: Io): Verb {
  const program = new Verb('bornemisza');
  program
    .description(
      'Keeps HAProxy, CouchDB and BIRD on a handful of machines configured for the cluster as it is now.',
    )
    .usage('COMMAND [options]')
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show this help')
    .helpCommand('help [command]', 'show the help of a command')
    .showSuggestionAfterError(true)
    // Else `upgrade` would take the options of `upgrade status` for its own. Every command inherits it.
    .enablePositionalOptions()
    .exitOverride()
    .configureHelp({ subcommandTerm: (command) => command.name() })
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      // Errors are printed once, by main.ts, in the form that all errors have.
      outputError: () => {},
      getOutHelpWidth: () => io.stdout.columns,
      getErrHelpWidth: () => io.stderr.columns,
      getOutHasColors: () => io.stdout.colour,
      getErrHasColors: () => io.stderr.colour,
    });
  program.hook('preAction', async (_program, action) => {
    // Under --root all paths are the caller's own.
    const { root = '' } = action.opts<{ root?: string }>();
    if (root === '' && action instanceof Verb && action.asRoot === undefined) await io.host.becomeDaemon();
  });
  program.examples = ['sudo bornemisza init --role app', 'bornemisza status', 'bornemisza explain db2/db'];
  program.addHelpText(
    'after',
    `\nExamples:\n${program.examples.map((line) => `  ${line}\n`).join('')}\n${exitCodes()}`,
  );
  for (const add of [addInit, addToken, addJoin]) add(program, io);
  for (const add of [
    addStatus,
    addTop,
    addMembers,
    addServices,
    addWait,
    addEvents,
    addExplain,
    addPing,
    addLog,
  ])
    add(program, io);
  for (const add of [addMaintenance, addUpgrade, addLeave, addRemove, addAuthority]) add(program, io);
  for (const add of [addDoctor, addDebug, addConfig, addReload, addPlan, addGuards, addNotify, addFirewall])
    add(program, io);
  for (const add of [addCertificate, addDns, addFloating]) add(program, io);
  for (const add of [addAccounts, addWeb]) add(program, io);
  for (const add of [addCompletion, addDaemon, addSite, addVersion]) add(program, io);
  addComplete(program, io);
  return program;
}

function exitCodes(): string {
  return `Exit codes:\n${EXIT_MEANINGS.map(([code, meaning]) => `  ${code}  ${meaning}\n`).join('')}`;
}
