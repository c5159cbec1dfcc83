import { parse, TomlError } from 'smol-toml';
import { CliFailure, EXIT } from '../failure.ts';
import type { Io } from '../io.ts';
import type { CommonOptions } from '../verb.ts';
import { withString } from './toml-keys.ts';

export interface AccountsSetupOptions extends CommonOptions {
  readonly publicUrl?: string;
  readonly siteName?: string;
  readonly mailFrom?: string;
  readonly smtpUrl?: string;
  readonly smtpUser?: string;
  readonly smtpPasswordFile?: string;
  readonly testTo?: string;
  readonly testMail?: boolean;
  readonly from?: string;
  readonly dryRun?: boolean;
}

/** What the app tier needs to know: from a person, from options, or from the present file. */
export interface Answers {
  readonly publicUrl: string;
  readonly siteName: string;
  readonly smtpUrl: string;
  readonly mailFrom: string;
  /** Undefined: the mail server asks for no login. */
  readonly smtpUser: string | undefined;
  /** Undefined: the one that is there, or none. */
  readonly password: string | undefined;
  /** Undefined: no test mail. */
  readonly testTo: string | undefined;
}

const KEYS = [
  ['', 'public_url', 'publicUrl'],
  ['', 'site_name', 'siteName'],
  ['mail', 'from', 'mailFrom'],
  ['mail', 'smtp_url', 'smtpUrl'],
  ['mail', 'smtp_user', 'smtpUser'],
] as const;
type Key = (typeof KEYS)[number][2];

const FIRST_TEXT = `# The app tier (docs/app.md). The same on all app nodes: bornemisza accounts setup --from THIS-FILE
# After a change: sudo systemctl restart bornemisza-app, in maintenance.
`;

type Known = Readonly<Partial<Record<Key, string>>>;

/** @throws CliFailure `accounts-file-unreadable` */
export function knownFrom(text: string | undefined, file: string): Known {
  if (text === undefined) return {};
  const all = parsed(text, file);
  const mail = typeof all['mail'] === 'object' ? (all['mail'] as Record<string, unknown>) : {};
  const found = KEYS.map(([table, key, name]) => [name, (table === '' ? all : mail)[key]] as const);
  return Object.fromEntries(found.filter(([, value]) => typeof value === 'string')) as Known;
}

function parsed(text: string, file: string): Record<string, unknown> {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [line = ''] = error.message.split('\n');
    throw new CliFailure(
      EXIT.failure,
      'accounts-file-unreadable',
      `${file}, line ${error.line}: ${line}`,
      `correct ${file}, or move it away and run this again`,
      { cause: error },
    );
  }
}

/** The file's text with the answers in it: keys and comments of the founder's own stay. */
export function textWith(before: string | undefined, answers: Answers, file: string): string {
  const text = KEYS.reduce((so, [table, key, name]) => {
    const value = answers[name];
    return value === undefined ? so : withString(so, table, key, value);
  }, before ?? FIRST_TEXT);
  const now = knownFrom(text, file);
  const lost = KEYS.find(([, , name]) => answers[name] !== undefined && now[name] !== answers[name]);
  if (lost === undefined) return text;
  throw new CliFailure(
    EXIT.failure,
    'accounts-file-form',
    `${lost[1]} is written in ${file} in a form that this command does not change`,
    `write it as one line, ${lost[1]} = "…", and run this again`,
  );
}

interface Question {
  readonly name: Key;
  readonly option: string;
  readonly prompt: string;
  readonly proposal?: string | undefined;
  readonly optional?: boolean;
}

/** @throws CliFailure `accounts-setup-missing` where nobody can be asked */
export async function answersOf(
  io: Io,
  options: AccountsSetupOptions,
  known: Known,
  password: { readonly given: string | undefined; readonly present: boolean },
): Promise<Answers> {
  const typed = options.json === true ? undefined : io.typed?.();
  const line = async (prompt: string, hidden = false): Promise<string> =>
    (await typed?.line(prompt, hidden))?.trim() ?? '';
  const found = async ({ name, option, prompt, proposal, optional }: Question): Promise<string> => {
    const before = known[name] ?? proposal;
    const said = options[name] ?? (await line(`${prompt}${before === undefined ? '' : ` [${before}]`}: `));
    const value = said === '' ? before : said;
    if (value !== undefined || optional === true) return value ?? '';
    throw new CliFailure(
      EXIT.usage,
      'accounts-setup-missing',
      `${option} is not known`,
      `give ${option}, or run it on a terminal, where it is asked for`,
    );
  };
  try {
    const publicUrl = await found({ name: 'publicUrl', option: '--public-url', prompt: PROMPTS.publicUrl });
    const host = URL.parse(publicUrl)?.hostname ?? '';
    const siteName = await found({
      name: 'siteName',
      option: '--site-name',
      prompt: PROMPTS.siteName,
      proposal: host.split('.')[0]?.replace(/^./, (first) => first.toUpperCase()),
    });
    const mailFrom = await found({ name: 'mailFrom', option: '--mail-from', prompt: PROMPTS.mailFrom });
    const smtpUrl = await found({ name: 'smtpUrl', option: '--smtp-url', prompt: PROMPTS.smtpUrl });
    const user = await found({
      name: 'smtpUser',
      option: '--smtp-user',
      prompt: PROMPTS.smtpUser,
      optional: true,
    });
    const smtpUser = user === '' ? undefined : user;
    const kept = password.present ? ' [as it is]' : '';
    const typedPassword =
      smtpUser === undefined || password.given !== undefined
        ? ''
        : await line(`${PROMPTS.password}${kept}: `, true);
    const skip = options.testMail === false || options.dryRun === true;
    const testTo = skip ? '' : (options.testTo ?? (await line(`${PROMPTS.testTo}: `)));
    return {
      publicUrl,
      siteName,
      mailFrom,
      smtpUrl,
      smtpUser,
      password: password.given ?? (typedPassword === '' ? undefined : typedPassword),
      testTo: testTo === '' ? undefined : testTo,
    };
  } finally {
    typed?.close();
  }
}

const PROMPTS = {
  publicUrl: 'Address of the site, e.g. https://shop.example',
  siteName: 'Name of the site, for mails',
  mailFrom: 'Sender of its mails, e.g. hello@shop.example',
  smtpUrl: 'Mail server, e.g. smtp://mail.shop.example:587',
  smtpUser: 'User at the mail server (empty: no login)',
  password: 'Password there (it is not shown)',
  testTo: 'Your own address, for a test mail (empty: none)',
} as const;
