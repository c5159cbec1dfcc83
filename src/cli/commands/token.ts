import { Argument, type Command, InvalidArgumentError, Option } from 'commander';
import type {
  TokenAnswer,
  TokenRow,
  TokensAnswer,
  TokensMade,
  TokensRevoked,
} from '../../daemon/control/api.ts';
import {
  TOKEN_DEFAULT_MS,
  TOKEN_LEAST_MS,
  TOKEN_MOST_MS,
  TOKENS_MOST,
} from '../../daemon/identity/admission/token-life.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { printJson } from '../answer.ts';
import { ControlClient } from '../client.ts';
import { formatDuration, formatInstant, parseDuration } from '../duration.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { instances, whyNone } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor } from '../paint.ts';
import { controlSocketOf } from '../places.ts';
import { renderTable } from '../table.ts';
import { addVerb, type CommonOptions, roleOption } from '../verb.ts';

interface CreateOptions extends CommonOptions {
  readonly role: Role;
  readonly ttl: number;
  readonly count?: number;
}

interface RevokeOptions extends CommonOptions {
  readonly all?: boolean;
}

export function addToken(program: Command, io: Io): void {
  const token = addVerb(program, 'token', { summary: 'tokens that admit new nodes', root: false });
  addCreate(token, io);
  addList(token, io);
  addRevoke(token, io);
}

function addCreate(token: Command, io: Io): void {
  addVerb(token, 'create', {
    summary: 'create a token that admits one new node',
    description:
      'Prints a token that admits one node of one role, once, until it expires. Only this node, which must be ' +
      'an authority, accepts it. The token is a secret: give it to `bornemisza join -` on the new machine. ' +
      '--count creates several, one a line (with --json an array), or none if one fails.',
    examples: [
      'bornemisza token create --role db',
      'bornemisza token create --role app --ttl 15m',
      'bornemisza token create --role db --count 2',
      "bornemisza token create --role db | ssh db2 'sudo bornemisza join -'",
    ],
    json: true,
  })
    .addOption(roleOption('role of the node to admit').makeOptionMandatory())
    .addOption(
      new Option('--ttl <duration>', 'how long it is valid, 1m to 24h')
        .argParser(timeToLive)
        .default(TOKEN_DEFAULT_MS, '1h'),
    )
    .addOption(new Option('--count <number>', `how many, 1 to ${TOKENS_MOST}`).argParser(howMany))
    .action(async (options: CreateOptions) => {
      await create(io, options);
    });
}

function addList(token: Command, io: Io): void {
  addVerb(token, 'list', {
    summary: 'list the tokens that this node created',
    description:
      'Lists the tokens that this authority created: role, whether each is open, used (and by whom), ' +
      'revoked or expired, and when it expires. The secrets are not stored and cannot be shown again. A ' +
      'token is forgotten a day after it expires. Each authority knows only its own tokens.',
    examples: [
      'bornemisza token list',
      'bornemisza token list --json | jq -r \'.tokens[] | select(.state == "open").id\'',
    ],
    json: true,
  }).action(async (options: CommonOptions) => {
    const answers = await ofEachAuthority(options, (daemon) => daemon.get<TokensAnswer>('/v1/tokens'));
    const tokens = answers.flatMap((each) =>
      each.tokens.map((row) => ({ authority: each.authority, ...row })),
    );
    if (options.json === true) printJson(io, { tokens });
    else io.stdout.write(renderTokens(tokens, answers.length > 1, paintFor(io.stdout), io.stdout.columns));
  });
}

function addRevoke(token: Command, io: Io): void {
  addVerb(token, 'revoke', {
    summary: 'revoke open tokens',
    description:
      'Revokes an unused token by the id that `bornemisza token list` shows, or with --all each open token of ' +
      'this authority. Nobody can join with a revoked token. Each revocation is written to the audit trail.',
    examples: ['bornemisza token revoke 3fa2c0d1e4b59687', 'bornemisza token revoke --all'],
    json: true,
  })
    .addArgument(new Argument('[id]', 'id of the token, from `bornemisza token list`'))
    .option('--all', 'each open token of this authority')
    .action(async (id: string | undefined, options: RevokeOptions) => {
      await revoke(io, id, options);
    });
}

async function create(io: Io, { role, ttl, count, json, root }: CreateOptions): Promise<void> {
  const body = { role, ttlMs: ttl, ...(count !== undefined && { count }) };
  const made = await ofFirstAuthority({ root, role }, ['not-authority'], (daemon) =>
    daemon.post<TokenAnswer | TokensMade>('/v1/tokens', body),
  );
  const tokens = 'tokens' in made ? made.tokens : [made];
  if (json === true) {
    printJson(io, count === undefined ? tokens[0] : tokens);
    return;
  }
  io.stdout.write(tokens.map(({ token }) => `${token}\n`).join(''));
  const [first] = tokens;
  if (first === undefined) return;
  const what = tokens.length === 1 ? 'It admits' : `Each of the ${tokens.length} admits`;
  const where = tokens.length === 1 ? 'the new machine' : 'each new machine';
  // On standard error, so that a pipe into `join -` carries only the token.
  io.stderr.write(
    `${what} one node of role ${first.role} at ${first.listen}, until ${formatInstant(first.expiresAt)} ` +
      `(${formatDuration(ttl)}).\n` +
      `  next: on ${where} \`sudo bornemisza join --start\`, and paste ${tokens.length === 1 ? 'it' : 'one of them'}\n`,
  );
}

async function revoke(io: Io, id: string | undefined, options: RevokeOptions): Promise<void> {
  if ((id === undefined) === (options.all !== true)) {
    const message = id === undefined ? 'no token id was given' : 'an id and --all exclude each other';
    const next = 'bornemisza token list shows the ids; --all revokes each open token';
    throw new CliFailure(EXIT.usage, 'usage', message, next);
  }
  if (id !== undefined && !/^[0-9a-f]{16}$/.test(id)) {
    throw new CliFailure(
      EXIT.usage,
      'usage',
      'that is not a token id: an id has 16 hex characters, and is not the token itself',
      'bornemisza token list shows the ids',
    );
  }
  const ask = (daemon: ControlClient): Promise<TokensRevoked> =>
    daemon.post('/v1/tokens/revoke', id === undefined ? { all: true } : { id });
  const answers =
    id === undefined
      ? await ofEachAuthority(options, ask)
      : [await ofFirstAuthority(options, ['not-authority', 'token-unknown'], ask)];
  const revoked = answers.flatMap((each) => each.revoked);
  if (options.json === true) printJson(io, { revoked });
  else {
    const said = answers.filter((each) => revoked.length === 0 || each.revoked.length > 0);
    io.stdout.write([...new Set(said.map(({ message }) => `${message}\n`))].join(''));
  }
}

function renderTokens(
  tokens: readonly (TokenRow & { readonly authority: string })[],
  named: boolean,
  paint: Paint,
  columns: number,
): string {
  if (tokens.length === 0) return 'no tokens; next: bornemisza token create --role ROLE\n';
  const rows = tokens.map((each) => [
    each.id,
    each.role,
    each.state === 'open' ? paint('yellow', 'open') : each.state,
    each.state === 'open' ? formatDuration(each.expiresInMs) : '-',
    ...(named ? [each.authority] : []),
    each.usedBy === undefined ? '' : `${each.usedBy}, ${formatInstant(each.usedAt ?? '')}`,
  ]);
  const head = ['TOKEN', 'ROLE', 'STATE', 'EXPIRES IN', ...(named ? ['AUTHORITY'] : []), 'USED BY'];
  return renderTable(head, rows, { columns, paint });
}

/** The daemons that run here: each can be an authority. The one of the given role is asked first. */
async function running(root = '', first: Role = 'app'): Promise<readonly ControlClient[]> {
  const all = await instances(root);
  const found = all
    .filter((each) => each.socket === 'answers')
    .sort((a, b) => Number(b.role === first) - Number(a.role === first));
  if (found.length === 0) throw whyNone(all);
  return found.map(({ role }) => new ControlClient(controlSocketOf(role, root), role));
}

/** The first answer that is not a refusal with one of `passing`; if all refuse, the last refusal. */
async function ofFirstAuthority<Answer>(
  { root, role }: { readonly root?: string | undefined; readonly role?: Role },
  passing: readonly string[],
  ask: (daemon: ControlClient) => Promise<Answer>,
): Promise<Answer> {
  let refused: unknown;
  for (const daemon of await running(root, role)) {
    try {
      return await ask(daemon);
    } catch (error) {
      if (!(error instanceof CliFailure) || !passing.includes(error.code)) throw error;
      // "Token unknown" from an authority is more useful than "not an authority" from another node.
      if (error.code !== 'not-authority' || refused === undefined) refused = error;
    }
  }
  throw refused;
}

/** The answer of each authority of this host; if there is none, the refusal. */
async function ofEachAuthority<Answer>(
  { root }: CommonOptions,
  ask: (daemon: ControlClient) => Promise<Answer>,
): Promise<readonly Answer[]> {
  const answers: Answer[] = [];
  let refused: unknown;
  for (const daemon of await running(root)) {
    try {
      answers.push(await ask(daemon));
    } catch (error) {
      if (!(error instanceof CliFailure) || error.code !== 'not-authority') throw error;
      refused = error;
    }
  }
  if (answers.length === 0) throw refused;
  return answers;
}

function timeToLive(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined || ms < TOKEN_LEAST_MS || ms > TOKEN_MOST_MS) {
    throw new InvalidArgumentError('It must be a duration from 1m to 24h, e.g. 30m.');
  }
  return ms;
}

function howMany(text: string): number {
  const count = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (count < 1 || count > TOKENS_MOST) {
    throw new InvalidArgumentError(`It must be a whole number from 1 to ${TOKENS_MOST}.`);
  }
  return count;
}
