import { type Command, InvalidArgumentError } from 'commander';
import { parseDuration } from '../duration.ts';
import type { Io } from '../io.ts';
import { addSetupOptions, type JoinOptions } from '../setup/options.ts';
import { addVerb } from '../verb.ts';

export function addJoin(program: Command, io: Io): void {
  const join = addVerb(program, 'join', {
    summary: 'join this machine to a cluster',
    description:
      'Joins this machine to the cluster and role that the token names; `bornemisza token create` prints a ' +
      'token. On a terminal you paste it; else it is read from standard input (-) or a file. A token as an ' +
      'argument is refused, since the process list would show it. Needs root and a stopped daemon. Run it ' +
      'again if a run was interrupted.',
    examples: [
      'sudo bornemisza join --start',
      'sudo bornemisza join --dry-run',
      'sudo bornemisza join --wait --start --token-file /root/token',
      'ssh app1 bornemisza token create --role db | sudo bornemisza join - --private-device eth1',
    ],
    json: true,
    role: true,
    asRoot:
      'it creates users, directories and configuration; stateWork does what touches the daemon’s directories',
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
