import { constants } from 'node:fs';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readIfPresent, replaceFile } from '../../host/files.ts';
import { printJson } from '../answer.ts';
import { runAsUnit } from '../confined.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Io, Ran } from '../io.ts';
import {
  type AccountsSetupOptions,
  type Answers,
  answersOf,
  knownFrom,
  textWith,
} from './accounts-questions.ts';
import { giveToGroup } from './owners.ts';
import { runSteps, showSteps, type Step } from './steps.ts';

/** A password, or a configuration of a dozen keys. */
const MAX_FILE_BYTES = 64 * 1024;
/** The mail server is given twice `mail.timeout_ms`, 30 s at most, and the process must start. */
const TRY_MS = 90_000;
const START_MS = 60_000;

interface Places {
  readonly root: string;
  readonly etc: string;
  readonly config: string;
  readonly password: string;
  readonly services: string;
}

/**
 * Sets the app tier of this node up. The mail server accepts a test mail before anything is written. A second run
 * proposes the present values.
 */
export async function setUpAccounts(io: Io, options: AccountsSetupOptions): Promise<void> {
  const { root = '', json = false } = options;
  if (root === '' && io.host.uid !== 0)
    throw new CliFailure(
      EXIT.permission,
      'not-root',
      'this command needs root: it writes /etc/bornemisza and starts a unit',
      'run it with sudo',
    );
  const etc = `${root}/etc/bornemisza`;
  const places: Places = {
    root,
    etc,
    config: join(etc, 'accounts.toml'),
    password: join(etc, 'smtp-password'),
    services: join(etc, 'services.d'),
  };
  const present = await readOwn(io, places.config);
  const before = options.from === undefined ? present : await mustReadOwn(io, options.from, '--from');
  const passwordBefore = await readOwn(io, places.password);
  const given =
    options.smtpPasswordFile === undefined
      ? undefined
      : firstLine(await mustReadOwn(io, options.smtpPasswordFile, '--smtp-password-file'));
  const known = knownFrom(before, options.from ?? places.config);
  const answers = await answersOf(io, options, known, { given, present: passwordBefore !== undefined });
  const wanted: Wanted = {
    text: textWith(before, answers, options.from ?? places.config),
    password: answers.password === undefined ? (passwordBefore ?? '') : `${answers.password}\n`,
    changed: { config: present, password: passwordBefore },
  };
  await refuseTakenPrefix(places);
  const steps = [
    tryStep(io, places, wanted, answers.testTo),
    ...(await fileSteps(places, wanted)),
    ...startSteps(io),
  ];
  const facts = factsOf(answers);
  if (options.dryRun === true) {
    await tryOut(io, places, wanted, undefined);
    showSteps(io, { facts, configText: wanted.text, paths: places }, steps, json);
    return;
  }
  await runSteps(io, facts, steps, json);
  report(io, answers, steps, json);
}

interface Wanted {
  readonly text: string;
  /** Empty: the mail server asks for none. */
  readonly password: string;
  readonly changed: { readonly config: string | undefined; readonly password: string | undefined };
}

function factsOf(answers: Answers): readonly (readonly [string, string])[] {
  return [
    ['site', `${answers.siteName} at ${answers.publicUrl}`],
    ['mail', `from ${answers.mailFrom} by ${answers.smtpUrl}`],
    ['login', answers.smtpUser ?? 'none'],
  ];
}

function report(io: Io, answers: Answers, steps: readonly Step[], json: boolean): void {
  if (json) {
    const { publicUrl, siteName, mailFrom, smtpUrl, smtpUser = null, testTo = null } = answers;
    const done = steps.filter(({ already }) => already === undefined).map(({ title }) => title);
    printJson(io, { publicUrl, siteName, mailFrom, smtpUrl, smtpUser, testMailTo: testTo, done });
    return;
  }
  io.stdout.write(
    `\nNext:\n  bornemisza services            (web and api come up)\n  open ${answers.publicUrl}\n` +
      'and on each further app node, with this accounts.toml copied there:\n' +
      '  sudo bornemisza accounts setup --from accounts.toml\n',
  );
}

/** Opened without following a link; it must belong to root: root reads only files that no other user can write. */
async function readOwn(io: Io, file: string): Promise<string | undefined> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw unreadable(file, error.code ?? error.message);
    },
  );
  if (handle === undefined) return undefined;
  try {
    const { uid, mode, size } = await handle.stat();
    const isOwn = uid === io.host.uid && (mode & 0o022) === 0;
    if (!isOwn || (mode & constants.S_IFMT) !== constants.S_IFREG)
      throw unreadable(file, 'only root must be able to write it, and it must be a regular file');
    if (size > MAX_FILE_BYTES) throw unreadable(file, `it is larger than ${MAX_FILE_BYTES} bytes`);
    return await handle.readFile('utf8');
  } finally {
    await handle.close();
  }
}

async function mustReadOwn(io: Io, file: string, option: string): Promise<string> {
  const text = await readOwn(io, file);
  if (text !== undefined) return text;
  throw new CliFailure(EXIT.usage, 'file-unreadable', `${file} does not exist`, `correct ${option}`);
}

function unreadable(file: string, why: string): CliFailure {
  return new CliFailure(
    EXIT.failure,
    'file-unreadable',
    `cannot read ${file}: ${why}`,
    `see why: ls -l ${file}; it must be root’s: chown root ${file} && chmod go-w ${file}`,
  );
}

const firstLine = (text: string): string => text.split(/\r?\n/)[0] ?? '';

/** Two services cannot have one prefix: the founder must first remove a former site. */
async function refuseTakenPrefix({ services }: Places): Promise<void> {
  const { loadServices } = await import('../../daemon/config/config.ts');
  const present = await loadServices(services);
  const wanted = { web: '/', api: '/api' } as const;
  for (const [name, prefix] of Object.entries(wanted)) {
    const other = present.find((each) => each.path_prefix === prefix && each.name !== name);
    if (other !== undefined)
      throw new CliFailure(
        EXIT.failure,
        'accounts-prefix-taken',
        `the service ${other.name} has path_prefix "${prefix}", which the app tier needs; nothing was written`,
        `give ${other.name} another path_prefix, or remove its file from ${services}; then run this again`,
      );
  }
}

function tryStep(io: Io, places: Places, wanted: Wanted, to: string | undefined): Step {
  return {
    title: to === undefined ? 'check the configuration' : `send a test mail to ${to}`,
    run: async () => {
      await tryOut(io, places, wanted, to);
      return to === undefined ? undefined : 'The mail server accepted it. Check that it arrives.';
    },
  };
}

/**
 * The app tier's own program reads both files and sends the mail, as its own user: root does not parse a mail server's
 * answers.
 */
async function tryOut(io: Io, places: Places, wanted: Wanted, to: string | undefined): Promise<void> {
  const staged = await mkdtemp(join(places.etc, '.accounts-'));
  try {
    const files = [
      ['accounts.toml', wanted.text],
      ['smtp-password', wanted.password],
    ] as const;
    for (const [name, text] of files) await writeFile(join(staged, name), text, { mode: 0o600 });
    const { code, stdout, stderr } = await runTry(io, places, staged, to);
    const said = triedIn(stdout);
    if (said?.ok === true) return;
    if (said === undefined) {
      const [line = ''] = stderr.trim().split('\n');
      throw new CliFailure(
        EXIT.failure,
        'accounts-try-failed',
        `the app tier could not test it (exit status ${code}): ${line}`,
        'check the package: rpm -V bornemisza-node; then run this again',
      );
    }
    throw new CliFailure(EXIT.failure, said.code, `${said.message}; nothing was written`, said.next);
  } finally {
    await rm(staged, { recursive: true, force: true });
  }
}

function runTry(io: Io, { root }: Places, staged: string, to: string | undefined): Promise<Ran> {
  const program = [`${root}/usr/libexec/bornemisza/node`, `${root}/usr/libexec/bornemisza/app.mjs`, '--try'];
  const command = to === undefined ? program : [...program, to];
  // Under --root all files are the caller's own.
  if (root !== '')
    return io.host.run('env', [`CREDENTIALS_DIRECTORY=${staged}`, ...command], { timeoutMs: TRY_MS });
  const properties = [
    ...['accounts.toml', 'smtp-password'].map((name) => `LoadCredential=${name}:${join(staged, name)}`),
    'User=bornemisza-app',
    'Group=bornemisza-app',
    'NoNewPrivileges=yes',
    'CapabilityBoundingSet=',
    'ProtectSystem=strict',
    'ProtectHome=yes',
    'PrivateTmp=yes',
    'PrivateDevices=yes',
    'RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6',
    'LimitCORE=0',
    `RuntimeMaxSec=${TRY_MS / 1000}`,
  ];
  return runAsUnit(io.host, properties, command, { timeoutMs: TRY_MS });
}

type Said = { readonly ok: true } | { readonly ok: false; code: string; message: string; next: string };

/** Checked by shape and size: it comes from a user with fewer rights, and may quote a mail server. */
function triedIn(stdout: string): Said | undefined {
  try {
    const said: unknown = JSON.parse(stdout.slice(0, 10_000));
    if (typeof said !== 'object' || said === null) return undefined;
    const { ok, code, message, next } = said as Record<string, unknown>;
    if (ok === true) return { ok };
    const isWhole = [code, message, next].every((each) => typeof each === 'string');
    if (!isWhole || !/^[a-z-]{1,40}$/.test(String(code))) return undefined;
    const plain = (text: unknown): string =>
      String(text)
        .replaceAll(/[^\x20-\x7e’…]/g, ' ')
        .slice(0, 500);
    return { ok: false, code: String(code), message: plain(message), next: plain(next) };
  } catch {
    return undefined;
  }
}

async function fileSteps(places: Places, { text, password, changed }: Wanted): Promise<Step[]> {
  const services = await Promise.all(
    ['web', 'api'].map(async (name): Promise<Step> => {
      const file = join(places.services, `${name}.toml`);
      const isThere = (await readIfPresent(file)) !== undefined;
      return {
        title: `write ${file}`,
        already: isThere ? 'there already' : undefined,
        run: async () => {
          const example = await readIfPresent(`${file}.example`);
          if (example === undefined)
            throw new CliFailure(
              EXIT.failure,
              'accounts-example-missing',
              `${file}.example does not exist`,
              'install the package again: sudo dnf reinstall bornemisza-node',
            );
          await replaceFile(file, example, { mode: 0o640 });
          if (places.root === '') await giveToGroup(file);
          return undefined;
        },
      };
    }),
  );
  return [
    {
      title: `write ${places.config}`,
      already: changed.config === text ? 'as it is' : undefined,
      run: async () => void (await replaceFile(places.config, text, { mode: 0o600 })),
    },
    ...(password === ''
      ? []
      : [
          {
            title: `write ${places.password}`,
            already: changed.password === password ? 'as it is' : undefined,
            run: async () => void (await replaceFile(places.password, password, { mode: 0o600 })),
          },
        ]),
    ...services,
  ];
}

function startSteps(io: Io): Step[] {
  const run = async (args: readonly string[], next: string): Promise<undefined> => {
    const { code, stderr } = await io.host.run('systemctl', args, { timeoutMs: START_MS });
    if (code === 0) return;
    const [line = ''] = stderr.trim().split('\n');
    throw new CliFailure(
      EXIT.failure,
      'accounts-start-failed',
      `the files are written, and systemctl ${args.join(' ')} failed: ${line}`,
      next,
    );
  };
  const enable = ['enable', '--now', 'bornemisza-app.service'];
  const reload = ['reload', 'bornemisza@app.service'];
  return [
    {
      title: `start it: systemctl ${enable.join(' ')}`,
      run: () => run(enable, 'see why: journalctl -u bornemisza-app -n 50; then run this again'),
    },
    {
      title: `reload the edge: systemctl ${reload.join(' ')}`,
      run: () =>
        run(reload, 'start the daemon of this node: systemctl start bornemisza@app; then run this again'),
    },
  ];
}
