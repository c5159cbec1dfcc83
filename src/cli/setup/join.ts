import { readFile } from 'node:fs/promises';
import { parseToken } from '../../daemon/identity/admission/tokens.ts';
import type { Joined } from '../../daemon/identity/admission/join.ts';
import { printJson } from '../answer.ts';
import type { JoinOptions } from './options.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { type Io, readInput } from '../io.ts';
import { VERSION } from '../version.ts';
import { resetSteps } from './init.ts';
import { prepare } from './node-setup.ts';
import { stateWork } from './state-work.ts';
import { runSteps, type Step } from './steps.ts';

/** A token is a few hundred characters; whoever pipes a film into `join -` made a mistake. */
const MAX_TOKEN_BYTES = 8192;

/** Joins the cluster that the token names. What can be refused is refused before the token is used up. */
export async function joinNode(io: Io, given: string | undefined, options: JoinOptions): Promise<void> {
  const text = await readToken(io, given, options);
  const token = parseToken(text);
  if (options.role !== undefined && options.role !== token.role) {
    throw new CliFailure(
      EXIT.usage,
      'role-mismatch',
      `the token admits role ${token.role}, not ${options.role}`,
      `make one: bornemisza token create --role ${options.role}`,
    );
  }
  const setup = await prepare(io, options, { role: token.role, cluster: token.cluster });
  const reset = options.reset === true;
  if (!reset && (await stateWork(io, setup.root, 'state', { stateDir: setup.paths.state })) === 'complete') {
    throw new CliFailure(
      EXIT.failure,
      'already-member',
      `this host is ${setup.config.node.host}/${token.role} of a cluster already`,
      `start it: systemctl enable --now bornemisza@${token.role}; or join anew, its old identity set aside: --reset`,
    );
  }
  let joined: Joined | undefined;
  const admission: Step = {
    title: `be admitted to cluster ${token.cluster} by ${token.issuer.address}`,
    run: async () => {
      joined = await stateWork(io, setup.root, 'join', {
        token: text,
        stateDir: setup.paths.state,
        host: setup.config.node.host,
        address: setup.config.network.private_address,
        role: token.role,
        version: VERSION,
      });
      return undefined;
    },
  };
  const json = options.json === true;
  await runSteps(io, setup.facts, [...setup.steps, ...resetSteps(io, setup, reset), admission], json);
  if (json) printJson(io, joined);
  else
    io.stdout.write(
      `\nNext:\n  systemctl enable --now bornemisza@${token.role}\n  bornemisza status --role ${token.role}\n`,
    );
}

async function readToken(io: Io, given: string | undefined, options: JoinOptions): Promise<string> {
  if (given !== undefined && options.tokenFile !== undefined) {
    throw new CliFailure(
      EXIT.usage,
      'usage',
      'a token and --token-file exclude each other',
      'give one of them',
    );
  }
  if (options.tokenFile !== undefined) return await fromFile(options.tokenFile);
  if (given !== undefined && given !== '-') return given.trim();
  if (given === undefined) {
    throw new CliFailure(
      EXIT.usage,
      'token-missing',
      'no token was given',
      'paste it into `bornemisza join -`; it comes from `bornemisza token create` on an authority',
    );
  }
  const text = await fromInput(io);
  if (text === '')
    throw new CliFailure(
      EXIT.usage,
      'token-missing',
      'standard input held no token',
      'paste what `bornemisza token create` printed, then Ctrl-D',
    );
  return text;
}

async function fromFile(file: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch (error) {
    throw new CliFailure(
      EXIT.failure,
      'token-file-unreadable',
      `cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`,
      'correct --token-file',
      { cause: error },
    );
  }
}

async function fromInput(io: Io): Promise<string> {
  const text = await readInput(io, MAX_TOKEN_BYTES);
  if (text.length > MAX_TOKEN_BYTES)
    throw new CliFailure(
      EXIT.usage,
      'token-not-a-token',
      'standard input holds more than a token',
      'give it the one line that `bornemisza token create` printed',
    );
  return text.trim();
}
