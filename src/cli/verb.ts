import { Command, Option } from 'commander';
import type { Role } from '../daemon/membership/types.ts';
import { ROLES } from './places.ts';

/** A command with its examples, so that help, manual page and tests read the same ones. */
export class Verb extends Command {
  examples: readonly string[] = [];
  /** See {@link VerbFacts.asRoot}. */
  asRoot: string | undefined;
}

interface VerbFacts {
  /** One line, for the list of commands. */
  readonly summary: string;
  /** What it does, for its own help; without it, the summary. */
  readonly description?: string;
  /** Whole command lines, most wanted first. A group of commands has none: its members have. */
  readonly examples?: readonly string[];
  readonly role?: boolean;
  readonly json?: boolean;
  /** Whether paths may be put under another directory (tests, the loopback demo). Not shown. */
  readonly root?: boolean;
  readonly hidden?: boolean;
  /**
   * Why the command stays root if root calls it. Without a reason it becomes the daemon's user first, since it reads
   * what the daemon writes.
   */
  readonly asRoot?: string;
}

/** Options that most commands share. */
export interface CommonOptions {
  readonly role?: Role;
  readonly json?: boolean;
  readonly root?: string;
}

/** Adds a command below another, with the options that it shares with its siblings. */
export function addVerb(parent: Command, name: string, facts: VerbFacts): Verb {
  const verb = new Verb(name);
  verb.copyInheritedSettings(parent);
  verb.summary(facts.summary).description(facts.description ?? `${capital(facts.summary)}.`);
  verb.helpOption('-h, --help', 'show this help');
  verb.examples = facts.examples ?? [];
  verb.asRoot = facts.asRoot;
  if (facts.role === true) verb.addOption(roleOption('role instance on this host, if both run'));
  if (facts.json === true) verb.option('--json', 'print JSON for programs');
  if (facts.root !== false)
    verb.addOption(new Option('--root <dir>', 'put all paths under this directory').default('').hideHelp());
  if (verb.examples.length > 0)
    verb.addHelpText('after', `\nExamples:\n${verb.examples.map((line) => `  ${line}\n`).join('')}`);
  parent.addCommand(verb, { hidden: facts.hidden === true });
  return verb;
}

export function roleOption(description: string): Option {
  return new Option('--role <role>', description).choices([...ROLES]);
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
