import { RootCommand } from '@bomb.sh/tab';
import type { Command } from 'commander';

export type Shell = 'bash' | 'zsh' | 'fish';
export const SHELLS: readonly Shell[] = ['bash', 'zsh', 'fish'];

/**
 * The bash script is ours: the library's puts the typed words unquoted into `eval`, so that a TAB after
 * `explain $(…)` would run that command, as root. It also sets read-only variables in the user's shell.
 */
const BASH_SCRIPT = `# bash completion for bornemisza
_bornemisza() {
  local line IFS=$'\\n'
  COMPREPLY=()
  local -a words=("\${COMP_WORDS[@]:1:COMP_CWORD}")
  while read -r line; do
    [[ $line == :* ]] || COMPREPLY+=("\${line%%$'\\t'*}")
  done < <(bornemisza complete -- "\${words[@]}" 2>/dev/null)
}
complete -o default -F _bornemisza bornemisza
`;

/** The script that a shell sources, as it may be shipped in a package. It asks `bornemisza complete` for the words. */
export function completionScript(shell: Shell): string {
  if (shell === 'bash') return BASH_SCRIPT;
  return captured(() => new RootCommand().setup('bornemisza', 'bornemisza', shell));
}

/**
 * Candidates for the last of `words`, one a line as VALUE TAB DESCRIPTION; the last line is a directive.
 *
 * @param nodes names offered where a command takes a NODE
 */
export function candidates(program: Command, words: readonly string[], nodes: readonly string[]): string {
  const root = new RootCommand();
  const [first, ...rest] = words;
  // What follows `help` are the commands alone, whatever they take.
  const help = first === 'help' && rest.length > 0;
  describe(program, [], root, help ? undefined : nodes);
  return captured(() => root.parse(help ? rest : [...words]));
}

/** Whether a candidate can be a node: only then the daemon is asked for names. */
export function wantsNode(program: Command, words: readonly string[]): boolean {
  const command = program.commands.find((each) => each.name() === words[0]);
  return command?.registeredArguments.some((each) => each.name() === 'node') ?? false;
}

function describe(
  command: Command,
  path: readonly string[],
  root: RootCommand,
  /** Undefined: commands alone, without what they take. */
  nodes: readonly string[] | undefined,
): void {
  const help = command.createHelp();
  const target = path.length === 0 ? root : root.command(path.join(' '), command.summary());
  if (nodes !== undefined) describeTaken(command, target, nodes);
  for (const child of help.visibleCommands(command)) {
    const name = child.name();
    if (name !== 'help') describe(child, [...path, name], root, nodes);
    else if (nodes !== undefined && path.length === 0) root.command(name, 'show the help of a command');
  }
}

/** Options and arguments of a command. */
function describeTaken(
  command: Command,
  target: ReturnType<RootCommand['command']>,
  nodes: readonly string[],
): void {
  const help = command.createHelp();
  for (const option of help.visibleOptions(command)) {
    const name = option.long?.slice(2);
    if (name === undefined) continue;
    const choices = option.argChoices ?? [];
    if (option.required)
      target.option(name, option.description, (complete) => choices.forEach((each) => complete(each, '')));
    else target.option(name, option.description);
  }
  for (const argument of command.registeredArguments) {
    const choices = argument.name() === 'node' ? nodes : (argument.argChoices ?? []);
    target.argument(
      argument.name(),
      (complete) => choices.forEach((each) => complete(each, '')),
      argument.variadic,
    );
  }
}

/** The library prints by console.log alone; what it printed is wanted as text. */
function captured(print: () => void): string {
  const original = console.log;
  const lines: string[] = [];
  console.log = (line: unknown) => void lines.push(String(line));
  try {
    print();
  } finally {
    console.log = original;
  }
  return `${lines.join('\n')}\n`;
}
