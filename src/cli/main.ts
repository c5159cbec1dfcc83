import { type Command, CommanderError } from 'commander';
import { CliFailure, EXIT, type Told, tell } from './failure.ts';
import type { Io } from './io.ts';
import { paintFor } from './paint.ts';
import { buildProgram } from './program.ts';

/**
 * Runs one command line.
 *
 * @param argv what follows the program's name
 * @returns the exit code, one of EXIT
 */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  const program = buildProgram(io);
  try {
    if (argv.length === 0) {
      program.outputHelp({ error: true });
      return EXIT.usage;
    }
    await program.parseAsync(helpAsked(program, argv), { from: 'user' });
    return EXIT.ok;
  } catch (error) {
    const told = error instanceof CommanderError ? usage(error, program, argv) : tell(error);
    if (told === undefined) return EXIT.ok;
    print(told, argv, io);
    return told.exit;
  }
}

/**
 * `help token create` is `token create --help`: commander's own reads one word, and ignores unknown ones.
 */
function helpAsked(program: Command, argv: readonly string[]): string[] {
  const [first, ...words] = argv;
  if (first !== 'help' || words.length === 0 || words.some((word) => word.startsWith('-'))) return [...argv];
  const { path } = commandAt(program, words);
  if (path.length === words.length) return [...words, '--help'];
  throw new CliFailure(
    EXIT.usage,
    'usage',
    `there is no command ${JSON.stringify(words.join(' '))}`,
    `bornemisza ${[...path, '--help'].join(' ')}`,
  );
}

/** The error of commander in our form; undefined if it only showed help or the version. */
function usage(error: CommanderError, program: Command, argv: readonly string[]): Told | undefined {
  if (error.exitCode === 0) return undefined;
  const { path, command } = commandAt(program, argv);
  const next = `bornemisza ${[...path, '--help'].join(' ')}`;
  // A group without a command: commander has already printed its help.
  if (error.code === 'commander.help') {
    return new CliFailure(EXIT.usage, 'usage', `${path.at(-1) ?? 'it'} needs one of its commands`, next);
  }
  if (error.code === 'commander.missingArgument') {
    const missing = command.registeredArguments
      .filter(({ required }) => required)
      .map((each) => `${each.name()} (${each.argChoices?.join(', ') ?? each.description})`);
    const message = `${path.join(' ')} needs its argument: ${missing.join(', ')}`;
    return new CliFailure(EXIT.usage, 'usage', message, next);
  }
  const message = error.message.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ');
  return new CliFailure(EXIT.usage, 'usage', message, next);
}

/** The command that the operator typed, for the reference to its help. */
function commandAt(
  program: Command,
  argv: readonly string[],
): { readonly path: readonly string[]; readonly command: Command } {
  const path: string[] = [];
  let at = program;
  for (const word of argv) {
    const child = at.commands.find((each) => each.name() === word);
    if (child === undefined) break;
    path.push(word);
    at = child;
  }
  return { path, command: at };
}

function print(told: Told, argv: readonly string[], io: Io): void {
  if (argv.includes('--json')) {
    const { code, message, next } = told;
    io.stderr.write(`${JSON.stringify({ error: { code, message, next } })}\n`);
    return;
  }
  const paint = paintFor(io.stderr);
  io.stderr.write(
    `${paint('red', 'bornemisza:')} ${told.message}\n  ${paint('bold', 'next:')} ${told.next}\n`,
  );
}
