import { readFile } from 'node:fs/promises';
import { parseToken, type Token } from '../../daemon/identity/admission/tokens.ts';
import type { Joined } from '../../daemon/identity/admission/join.ts';
import { printJson } from '../answer.ts';
import type { JoinOptions } from './options.ts';
import { formatDuration } from '../duration.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { type Io, readInput } from '../io.ts';
import { VERSION } from '../../daemon/version.ts';
import { ask } from './ask.ts';
import { resetSteps } from './init.ts';
import { prepare } from './node-setup.ts';
import { stateWork } from './state-work.ts';
import { startStep } from './start.ts';
import { runSteps, showSteps, type Step } from './steps.ts';
import { waitingFor } from './waiting.ts';

/** A token has a few hundred characters; more input is a mistake. */
const MAX_TOKEN_BYTES = 8192;

/** Joins the cluster that the token names. All checks run before the token is used. */
export async function joinNode(io: Io, given: string | undefined, options: JoinOptions): Promise<void> {
  const text = await readToken(io, given, options);
  const token = parseToken(text);
  if (options.role !== undefined && options.role !== token.role) {
    throw new CliFailure(
      EXIT.usage,
      'role-mismatch',
      `the token admits role ${token.role}, not ${options.role}`,
      `create one for it: bornemisza token create --role ${options.role}`,
    );
  }
  const { wait, dryRun = false } = options;
  const endMs = wait === undefined || dryRun ? undefined : waitUntil(wait, token.expiresAtMs);
  // The operator is not asked for what can still appear by itself.
  const asked = endMs === undefined ? io : withoutQuestions(io);
  const setup = await waitingFor(io, endMs, () =>
    prepare(asked, options, { role: token.role, cluster: token.cluster }),
  );
  const reset = options.reset === true;
  if (!reset && (await stateWork(io, setup.root, 'state', { stateDir: setup.paths.state })) === 'complete') {
    throw new CliFailure(
      EXIT.failure,
      'already-member',
      `this host is already ${setup.config.node.host}/${token.role} of a cluster`,
      `start it: systemctl enable --now bornemisza@${token.role}; or move its identity aside and join again: --reset`,
    );
  }
  let joined: Joined | undefined;
  const admission: Step = {
    title: `join cluster ${token.cluster} through ${token.issuer.address}`,
    run: async () => {
      const join = {
        token: text,
        stateDir: setup.paths.state,
        host: setup.config.node.host,
        address: setup.config.network.private_address,
        role: token.role,
        version: VERSION,
      };
      joined = await waitingFor(io, endMs, () => stateWork(io, setup.root, 'join', join));
      return undefined;
    },
  };
  const json = options.json === true;
  const start = options.start === true ? [startStep(io, token.role)] : [];
  const steps = [...setup.steps, ...resetSteps(io, setup, reset), admission, ...start];
  if (dryRun) {
    showSteps(io, { ...setup, facts: [...setup.facts, ['token', tokenWords(token)]] }, steps, json);
    return;
  }
  await runSteps(io, setup.facts, steps, json);
  if (json) printJson(io, joined);
  else if (options.start === true) io.stdout.write(`\nNext:\n  bornemisza status --role ${token.role}\n`);
  else
    io.stdout.write(
      `\nNext:\n  systemctl enable --now bornemisza@${token.role}\n  bornemisza status --role ${token.role}\n`,
    );
}

/** By this host's clock; the issuer uses its own. */
function tokenWords({ issuer, expiresAtMs }: Token): string {
  const leftMs = expiresAtMs - Date.now();
  const end = leftMs > 0 ? `ends in ${formatDuration(leftMs)}` : `ended ${formatDuration(-leftMs)} ago`;
  return `of ${issuer.address}:${issuer.port}, ${end}; a dry run does not use it up`;
}

/** An expired token admits nobody: waiting longer is useless then. */
function waitUntil(wait: number | true, expiresAtMs: number): number {
  return wait === true ? expiresAtMs : Math.min(expiresAtMs, Date.now() + wait);
}

function withoutQuestions({ typed: _typed, ...io }: Io): Io {
  return io;
}

async function readToken(io: Io, given: string | undefined, options: JoinOptions): Promise<string> {
  if (given !== undefined && options.tokenFile !== undefined) {
    throw new CliFailure(
      EXIT.usage,
      'usage',
      'a token and --token-file exclude each other',
      'pass one of them',
    );
  }
  if (options.tokenFile !== undefined) return await fromFile(options.tokenFile);
  if (given !== undefined && given !== '-') {
    throw new CliFailure(
      EXIT.usage,
      'token-in-argv',
      'a token on the command line can be read by every user of this machine, in the process list and ' +
        'the shell’s history',
      'paste it into `sudo bornemisza join -`, or pass --token-file; if others use this machine, create a ' +
        'new token first',
    );
  }
  if (io.typed !== undefined) {
    const line = await ask(io, 'Paste the token, then Enter: ');
    if (line !== '') return line;
  }
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
      'paste what `bornemisza token create` printed',
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
      'pass only the one line that `bornemisza token create` printed',
    );
  return text.trim();
}
