import { Argument, type Command } from 'commander';
import type { MembersAnswer, StatusAnswer } from '../../daemon/control/api.ts';
import { printJson } from '../answer.ts';
import { ControlClient } from '../client.ts';
import { candidates, completionScript, SHELLS, type Shell, wantsNode } from '../completion.ts';
import { instances } from '../instances.ts';
import type { Io } from '../io.ts';
import { controlSocketOf } from '../places.ts';
import { addVerb, type CommonOptions, roleOption } from '../verb.ts';
import { VERSION } from '../../daemon/version.ts';

/** The shell blocks while it waits for candidates. */
const COMPLETION_TIMEOUT_MS = 300;

/** The commands about the program itself: its version, its completion, the daemon's own start. */
export function addVersion(program: Command, io: Io): void {
  addVerb(program, 'version', {
    summary: 'print the version of the program and of the daemons that run',
    examples: ['bornemisza version', 'bornemisza version --json'],
    json: true,
  }).action(async (options: CommonOptions) => {
    const daemons = await runningVersions(options.root ?? '');
    if (options.json === true) {
      printJson(io, { version: VERSION, node: process.version, daemons: Object.fromEntries(daemons) });
      return;
    }
    io.stdout.write(`bornemisza ${VERSION} (Node.js ${process.version})\n`);
    for (const [role, version] of daemons) {
      const stale = version === VERSION ? '' : `; to run this version: systemctl restart bornemisza@${role}`;
      io.stdout.write(`bornemisza@${role} runs ${version}${stale}\n`);
    }
  });
}

async function runningVersions(root: string): Promise<(readonly [string, string])[]> {
  const running = (await instances(root)).filter((each) => each.socket === 'answers');
  const asked = running.map(async ({ role }) => {
    const status = await new ControlClient(controlSocketOf(role, root), role)
      .get<StatusAnswer>('/v1/status', 2000)
      .catch(() => undefined);
    return status === undefined ? [] : [[role, status.version] as const];
  });
  return (await Promise.all(asked)).flat();
}

export function addCompletion(program: Command, io: Io): void {
  addVerb(program, 'completion', {
    summary: 'print the completion script of a shell',
    examples: [
      'source <(bornemisza completion bash)',
      'bornemisza completion zsh > ~/.zfunc/_bornemisza',
      'bornemisza completion fish > ~/.config/fish/completions/bornemisza.fish',
    ],
    root: false,
  })
    .addArgument(new Argument('<shell>', 'name of the shell').choices([...SHELLS]))
    .action((shell: Shell) => io.stdout.write(completionScript(shell)));
}

/** The completion scripts call this at each TAB. */
export function addComplete(program: Command, io: Io): void {
  const complete = addVerb(program, 'complete', {
    summary: 'print candidates for the last word, for completion scripts',
    examples: ["bornemisza complete -- explain ''"],
    hidden: true,
  });
  complete.argument('[words...]').action(async (words: string[], options: CommonOptions) => {
    const names = wantsNode(program, words) ? await nodeNames(options.root ?? '') : [];
    io.stdout.write(candidates(program, words, names));
  });
}

async function nodeNames(root: string): Promise<string[]> {
  for (const instance of await instances(root)) {
    if (instance.socket !== 'answers') continue;
    try {
      const daemon = new ControlClient(controlSocketOf(instance.role, root), instance.role);
      return (await daemon.get<MembersAnswer>('/v1/members', COMPLETION_TIMEOUT_MS)).members.map(
        (each) => each.name,
      );
    } catch {
      // Without names the candidates are fewer; an error would be printed into the command line.
    }
  }
  return [];
}

export function addDaemon(program: Command, io: Io): void {
  addVerb(program, 'daemon', {
    summary: 'run the daemon of one role in the foreground (systemd does it)',
    description:
      'Runs the daemon of one role instance in the foreground. The unit bornemisza@ROLE.service calls it; ' +
      'use systemctl instead.',
    examples: ['bornemisza daemon --role app', 'systemctl enable --now bornemisza@app'],
  })
    .addOption(roleOption('role of this instance').makeOptionMandatory())
    .action(async (options: CommonOptions) => {
      const root = options.root === undefined || options.root === '' ? [] : ['--root', options.root];
      await io.startDaemon(['--role', options.role ?? '', ...root]);
    });
}
