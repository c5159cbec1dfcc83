import { readAccounts } from '../../host/account.ts';
import { CliFailure, EXIT, type Told } from '../failure.ts';
import type { Io } from '../io.ts';
import { STATE_TASK, type TaskName, type Tasks, type TaskUser } from './state-task.ts';

/** An admission is tried for 30 s; three RSA keys take as long on a busy machine. */
const LONGEST_MS = 120_000;

type Input<Name extends TaskName> = Parameters<Tasks[Name]>[0];
type Output<Name extends TaskName> = Awaited<ReturnType<Tasks[Name]>>;

/**
 * Does a task in a process that becomes the daemon's user before it opens any file. Runs in this process if it cannot
 * become that user: under `--root`, without root, and before that user exists, when it can own nothing.
 *
 * @throws CliFailure the error of the task
 */
export async function stateWork<Name extends TaskName>(
  { host }: Pick<Io, 'host'>,
  root: string,
  task: Name,
  input: Input<Name>,
  user: TaskUser = 'bornemisza',
): Promise<Output<Name>> {
  if (root !== '' || host.uid !== 0 || !(await readAccounts()).users.has(user)) {
    const { TASKS } = await import('./state-task.ts');
    return (await (TASKS[task] as (given: Input<Name>) => Promise<unknown>)(input)) as Output<Name>;
  }
  // The input has secrets: on standard input, not in argv.
  const ran = await host.run(process.execPath, [...process.execArgv, process.argv[1] ?? '', STATE_TASK], {
    timeoutMs: LONGEST_MS,
    input: JSON.stringify({ task, user, input }),
  });
  const answer =
    ran.code === 0 ? (JSON.parse(ran.stdout) as { done: Output<Name>; error?: Told }) : undefined;
  if (answer?.error !== undefined) {
    const { exit, code, message, next } = answer.error;
    throw new CliFailure(exit, code, message, next);
  }
  if (answer !== undefined) return answer.done;
  throw new CliFailure(
    EXIT.failure,
    'state-task-failed',
    `the part of this command that runs as user ${user} ended without an answer (${task}): ` +
      (ran.stderr.trim().split('\n').at(-1) ?? ''),
    'run the command again; if it fails again, report it with the output of `bornemisza version`',
  );
}
