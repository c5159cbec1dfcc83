import { pathsFor } from '../../daemon/config/config.ts';
import type { Role } from '../../daemon/membership/types.ts';
import type { Done } from '../../daemon/control/api.ts';
import { printJson } from '../answer.ts';
import type { AuthorityOptions } from './options.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { type Instance, whyNone } from '../instances.ts';
import type { Io } from '../io.ts';
import { readRecovery } from './recovery-input.ts';
import { stateWork } from './state-work.ts';

/**
 * Opens the root key in this process, which lives for a second and has no network access, and leaves the daemon the key
 * of one authority: what reads the network never holds the root.
 */
export async function addThisNode(io: Io, file: string, options: AuthorityOptions): Promise<void> {
  const { role, socket } = await instanceOf(io, options);
  const { root = '' } = options;
  const running = socket === 'answers';
  let name = '';
  try {
    const recovery = await readRecovery(io, file, options.passphraseFile);
    name = await stateWork(io, root, 'add-authority', { stateDir: pathsFor(role, root).state, recovery });
  } catch (error) {
    // An earlier run can have written the key and ended before it notified the daemon: continue there.
    if (!running || (error as { code?: unknown }).code !== 'already-authority') throw error;
  }
  const answer: Done = running
    ? await stateWork(io, root, 'ask', { role, root, path: '/v1/authority/adopt' })
    : { done: true, message: `${name} becomes an authority at the next start of its daemon` };
  if (options.json === true) printJson(io, answer);
  else {
    const next = running ? 'bornemisza authority list' : `systemctl start bornemisza@${role}`;
    io.stdout.write(`${answer.message}\n  next: ${next}; remove the recovery bundle from this machine\n`);
  }
}

/** The only role instance that is set up here, running or not, or the one that --role names. */
export async function instanceOf(
  io: Io,
  { role, root = '' }: AuthorityOptions,
): Promise<Instance & { role: Role }> {
  const here: readonly Instance[] = await stateWork(io, root, 'instances', { root });
  const all = here.filter((each) => role === undefined || each.role === role);
  const [one, other] = all.filter((each) => each.configured === 'yes');
  if (one === undefined) throw whyNone(all);
  if (other === undefined) return one;
  throw new CliFailure(
    EXIT.usage,
    'role-ambiguous',
    'both roles are set up on this host',
    'choose one: --role app or --role db',
  );
}
