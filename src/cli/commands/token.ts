import { type Command, InvalidArgumentError, Option } from 'commander';
import type { TokenAnswer } from '../../daemon/control/api.ts';
import {
  TOKEN_DEFAULT_MS,
  TOKEN_LEAST_MS,
  TOKEN_MOST_MS,
} from '../../daemon/identity/admission/token-life.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { printJson } from '../answer.ts';
import { ControlClient } from '../client.ts';
import { formatDuration, formatInstant, parseDuration } from '../duration.ts';
import { CliFailure } from '../failure.ts';
import { instances, whyNone } from '../instances.ts';
import type { Io } from '../io.ts';
import { controlSocketOf } from '../places.ts';
import { addVerb, type CommonOptions, roleOption } from '../verb.ts';

interface TokenOptions extends CommonOptions {
  readonly role: Role;
  readonly ttl: number;
}

export function addToken(program: Command, io: Io): void {
  const token = addVerb(program, 'token', { summary: 'tokens that admit new nodes', root: false });
  addVerb(token, 'create', {
    summary: 'make a token that admits one new node',
    description:
      'Prints one string that admits one node of one role, once, while it lives, and at this node alone, which must be an authority. The string is a secret: hand it to `bornemisza join -` on the new machine.',
    examples: [
      'bornemisza token create --role db',
      'bornemisza token create --role app --ttl 15m',
      "bornemisza token create --role db | ssh db2 'sudo bornemisza join -'",
    ],
    json: true,
  })
    .addOption(roleOption('role of the node to admit').makeOptionMandatory())
    .addOption(
      new Option('--ttl <duration>', 'how long it lives, 1m to 24h')
        .argParser(timeToLive)
        .default(TOKEN_DEFAULT_MS, '1h'),
    )
    .action(async (options: TokenOptions) => {
      const answer = await create(options);
      if (options.json === true) {
        printJson(io, answer);
        return;
      }
      io.stdout.write(`${answer.token}\n`);
      // On standard error, so that a pipe into `join -` carries the token alone.
      io.stderr.write(
        `It admits one node of role ${answer.role} at ${answer.listen}, until ${formatInstant(answer.expiresAt)} (${formatDuration(options.ttl)}).\n` +
          '  next: on the new machine `sudo bornemisza join --start`, and paste it\n',
      );
    });
}

/** Where both roles run here either may be the authority; the one of the wanted role is asked first. */
async function create({ role, ttl, root = '' }: TokenOptions): Promise<TokenAnswer> {
  const all = await instances(root);
  const running = all
    .filter((each) => each.socket === 'answers')
    .sort((a, b) => Number(b.role === role) - Number(a.role === role));
  if (running.length === 0) throw whyNone(all);
  let refused: unknown;
  for (const instance of running) {
    try {
      const daemon = new ControlClient(controlSocketOf(instance.role, root), instance.role);
      return await daemon.post<TokenAnswer>('/v1/tokens', { role, ttlMs: ttl });
    } catch (error) {
      if (!(error instanceof CliFailure) || error.code !== 'not-authority') throw error;
      refused = error;
    }
  }
  throw refused;
}

function timeToLive(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined || ms < TOKEN_LEAST_MS || ms > TOKEN_MOST_MS) {
    throw new InvalidArgumentError('It must be a duration from 1m to 24h, e.g. 30m.');
  }
  return ms;
}
