import type { Command } from 'commander';
import type { Io } from '../io.ts';
import { addSetupOptions, type JoinOptions } from '../setup/options.ts';
import { addVerb } from '../verb.ts';

export function addJoin(program: Command, io: Io): void {
  const join = addVerb(program, 'join', {
    summary: 'join this machine to a cluster',
    description:
      'Joins this machine to the cluster that the token names, in the role that it names: the token comes from `bornemisza token create`. Read it from standard input (-) or a file; as an argument it can be seen in the process list. Takes root, while the daemon is stopped; can be run again after a half-done run.',
    examples: [
      'sudo bornemisza join -',
      'sudo bornemisza join --token-file /root/token',
      'ssh app1 bornemisza token create --role db | sudo bornemisza join - --private-device eth1',
    ],
    json: true,
    role: true,
    asRoot:
      'it makes users, directories and configuration; what lies in the daemon’s directories is done by stateWork',
  })
    .argument('[token]', 'the token, or - for standard input')
    .option('--token-file <file>', 'file that holds the token');
  addSetupOptions(join).action(async (token: string | undefined, options: JoinOptions) => {
    const { joinNode } = await import('../setup/join.ts');
    await joinNode(io, token, options);
  });
}
