import { type Command, InvalidArgumentError } from 'commander';
import type {
  AccountsAnswer,
  ChangedAccount,
  ListedAccount,
  ShownAccount,
} from '../../daemon/control/api.ts';
import { printJson } from '../answer.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { appDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { paintFor } from '../paint.ts';
import type { AccountsSetupOptions } from '../setup/accounts-questions.ts';
import { ask } from '../setup/ask.ts';
import { renderFacts } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

/** The daemon waits a minute for the app tier, which waits for the databases. */
const TIMEOUT_MS = 75_000;
/** Nobody reads a longer table, and all of it is kept in memory: 2 MB. */
const MOST_LISTED = 10_000;

interface DeleteOptions extends CommonOptions {
  readonly yes?: boolean;
}

/** For the founder's support work: the app tier does it, the daemon writes it to the audit trail. */
export function addAccounts(program: Command, io: Io): void {
  const accounts = addVerb(program, 'accounts', {
    summary: 'accounts of the people who use the site',
    root: false,
  });
  addSetup(accounts, io);
  addVerb(accounts, 'list', {
    summary: 'list the accounts, by e-mail address',
    description:
      `Lists the accounts, ${MOST_LISTED} at most. A person who requested a link and has not used it has no ` +
      'account yet.',
    examples: ['bornemisza accounts list', "bornemisza accounts list --json | jq -r '.accounts[].email'"],
    json: true,
  }).action(async (options: CommonOptions) => list(io, options));
  addVerb(accounts, 'show', {
    summary: 'show one account: its name, its database, the space it uses',
    examples: [
      'bornemisza accounts show anna@example.org',
      'bornemisza accounts show anna@example.org --json',
    ],
    json: true,
  })
    .argument('<email>', 'address of the account', address)
    .action(async (email: string, options: CommonOptions) => show(io, email, options));
  addVerb(accounts, 'disable', {
    summary: 'refuse all sign-ins to an account; its data stay',
    description:
      'Ends all sessions of the account and refuses new ones. Sessions end at once on this node and within ' +
      '5 seconds on the others; open feeds of changes end within 10. The data stay; `accounts enable` ' +
      'gives access again.',
    examples: ['bornemisza accounts disable anna@example.org'],
    json: true,
  })
    .argument('<email>', 'address of the account', address)
    .action(async (email: string, options: CommonOptions) => change(io, 'disable', email, options));
  addVerb(accounts, 'enable', {
    summary: 'allow sign-ins to a disabled account again',
    description: 'The person signs in with the same password as before. Ended sessions stay ended.',
    examples: ['bornemisza accounts enable anna@example.org'],
    json: true,
  })
    .argument('<email>', 'address of the account', address)
    .action(async (email: string, options: CommonOptions) => change(io, 'enable', email, options));
  addVerb(accounts, 'delete', {
    summary: 'delete an account and all its data, for good',
    description:
      'Deletes an account and its database, as the person could. This cannot be undone; `accounts ' +
      'disable` can. On a terminal you type the address once more; a script passes --yes.',
    examples: [
      'bornemisza accounts delete anna@example.org',
      'bornemisza accounts delete anna@example.org --yes',
    ],
    json: true,
  })
    .argument('<email>', 'address of the account', address)
    .option('--yes', 'do not ask')
    .action(async (email: string, options: DeleteOptions) => {
      if (options.yes !== true) await mayDelete(io, email, options);
      await change(io, 'delete', email, options);
    });
}

function addSetup(accounts: Command, io: Io): void {
  addVerb(accounts, 'setup', {
    summary: 'set the app tier of this node up: site, mail server, services',
    description:
      'Asks for the settings of the app tier, sends a test mail, and only then writes ' +
      '/etc/bornemisza/accounts.toml, the password of the mail server and the services web and api, starts ' +
      'bornemisza-app and reloads the edge. A second run proposes the present values; your own keys and ' +
      'comments stay. On a further app node, --from uses the file of the first.',
    examples: [
      'sudo bornemisza accounts setup',
      'sudo bornemisza accounts setup --public-url https://shop.example --mail-from hello@shop.example ' +
        '--smtp-url smtp://mail.shop.example:587 --no-test-mail',
      'sudo bornemisza accounts setup --from accounts.toml --smtp-password-file smtp-password --json',
    ],
    json: true,
    asRoot: 'it writes /etc/bornemisza, which root alone may write, and asks the mail server as another user',
  })
    .option('--public-url <url>', 'address of the site, e.g. https://shop.example')
    .option('--site-name <name>', 'name of the site, for mails')
    .option('--mail-from <address>', 'sender of the mails')
    .option('--smtp-url <url>', 'mail server, e.g. smtp://mail.shop.example:587 or smtps://…:465')
    .option('--smtp-user <name>', 'user at the mail server')
    .option('--smtp-password-file <file>', 'file with the password of that user; it must belong to root')
    .option(
      '--from <file>',
      'accounts.toml of the first app node, for values without an option; it must belong to root',
    )
    .option('--test-to <address>', 'your own address, for the test mail', address)
    .option('--no-test-mail', 'send no test mail')
    .option('--dry-run', 'check the settings, show what would be written, and write nothing')
    .action(async (options: AccountsSetupOptions) => {
      // Loaded here alone: the other commands parse no TOML.
      const { setUpAccounts } = await import('../setup/accounts.ts');
      await setUpAccounts(io, options);
    });
}

function address(text: string): string {
  if (/^[^@\s]+@[^@\s]+$/.test(text.trim())) return text.trim();
  throw new InvalidArgumentError('It must be an e-mail address, e.g. anna@example.org.');
}

async function list(io: Io, options: CommonOptions): Promise<void> {
  const daemon = await appDaemonOf(options);
  const found: ListedAccount[] = [];
  let after: string | undefined;
  do {
    const page = await daemon.post<AccountsAnswer>('/v1/accounts/list', { after }, TIMEOUT_MS);
    found.push(...page.accounts);
    after = page.next;
  } while (after !== undefined && found.length < MOST_LISTED);
  const accounts = found.toSorted((a, b) => (a.email < b.email ? -1 : 1));
  if (options.json === true) {
    printJson(io, { accounts, more: after !== undefined });
    return;
  }
  if (accounts.length === 0) io.stdout.write('nobody has an account yet\n');
  else io.stdout.write(picture(accounts));
  if (after !== undefined)
    io.stderr.write(
      `Only the first ${accounts.length} are listed.\n  next: bornemisza accounts show EMAIL\n`,
    );
}

/** Columns of equal width: wrapping the longest list would take half a minute. */
function picture(accounts: readonly ListedAccount[]): string {
  const widest = Math.max('E-MAIL'.length, ...accounts.map(({ email }) => email.length));
  const line = (email: string, state: string, account: string): string =>
    `${email.padEnd(widest)}  ${state.padEnd(8)}  ${account}\n`;
  const rows = accounts.map(({ email, disabled, account }) =>
    line(email, disabled ? 'disabled' : 'enabled', account),
  );
  return [line('E-MAIL', 'STATE', 'ACCOUNT'), ...rows].join('');
}

async function show(io: Io, email: string, options: CommonOptions): Promise<void> {
  const daemon = await appDaemonOf(options);
  const shown = await daemon.post<ShownAccount>('/v1/accounts/show', { email }, TIMEOUT_MS);
  if (options.json === true) {
    printJson(io, shown);
    return;
  }
  const facts = [
    ['account', shown.account],
    ['state', shown.disabled ? 'disabled: nobody can sign in' : 'enabled'],
    ['database', shown.database],
    ['space', space(shown)],
  ] as const;
  io.stdout.write(`${shown.email}\n${renderFacts(facts, paintFor(io.stdout))}`);
}

function space({ usedBytes, quotaBytes }: ShownAccount): string {
  const megabytes = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MB`;
  const used = usedBytes === null ? 'its database is being created' : megabytes(usedBytes);
  return `${used}, of ${megabytes(quotaBytes)}`;
}

const DONE = {
  disable: 'disabled: at other nodes its sessions end within 5 s, open feeds within 10 s',
  enable: 'enabled',
  delete: 'deleted, with its database',
} as const;

async function change(io: Io, verb: keyof typeof DONE, email: string, options: CommonOptions): Promise<void> {
  const daemon = await appDaemonOf(options);
  const answer = await daemon.post<ChangedAccount>(`/v1/accounts/${verb}`, { email }, TIMEOUT_MS);
  if (options.json === true) printJson(io, answer);
  else if (answer.changed) io.stdout.write(`${answer.email} is ${DONE[verb]}\n`);
  else io.stdout.write(`${answer.email} is already ${verb}d\n`);
}

/** Shows first what will be deleted. A script must pass --yes. */
async function mayDelete(io: Io, email: string, options: CommonOptions): Promise<void> {
  const daemon = await appDaemonOf(options);
  const shown = await daemon.post<ShownAccount>('/v1/accounts/show', { email }, TIMEOUT_MS);
  if (io.typed !== undefined) {
    io.stderr.write(`${shown.email} and its data (${space(shown)}) will be deleted for good.\n`);
    if ((await ask(io, `To delete it, type ${shown.email}: `)) === shown.email) return;
  }
  throw new CliFailure(
    EXIT.usage,
    'accounts-not-confirmed',
    `${shown.email} was not deleted`,
    io.typed === undefined ? 'without a terminal, pass --yes' : 'run it again and type the address',
  );
}
