import { type Command, InvalidArgumentError } from 'commander';
import { parseDuration } from '../duration.ts';
import type { Io } from '../io.ts';
import { addSetupOptions, type JoinOptions } from '../setup/options.ts';
import { addVerb } from '../verb.ts';

export function addJoin(program: Command, io: Io): void {
  const join = addVerb(program, 'join', {
    summary: 'join this machine to a cluster',
    description:
      'Joins this machine to the cluster that the token names, in the role that it names: the token ' +
      'comes from `bornemisza token create`. On a terminal it is asked for; else it comes from standard ' +
      'input (-) or a file. As an argument it would be seen in the process list, and is refused. Takes ' +
      'root, while the daemon is stopped; can be run again after a half-done run.',
    examples: [
      'sudo bornemisza join --start',
      'sudo bornemisza join --dry-run',
      'sudo bornemisza join --wait --start --token-file /root/token',
      'ssh app1 bornemisza token create --role db | sudo bornemisza join - --private-device eth1',
    ],
    json: true,
    role: true,
    asRoot:
      'it makes users, directories and configuration; what lies in the daemon’s directories is done by stateWork',
  })
    .argument('[-]', 'read the token from standard input')
    .option('--token-file <file>', 'file that holds the token')
    .option(
      '--wait [duration]',
      'wait for the private address and for the issuer, e.g. 5m (default: as long as the token lives)',
      patience,
    );
  addSetupOptions(join).action(async (token: string | undefined, options: JoinOptions) => {
    const { joinNode } = await import('../setup/join.ts');
    await joinNode(io, token, options);
  });
}

function patience(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined) throw new InvalidArgumentError('It must be a duration, e.g. 5m.');
  return ms;
}
