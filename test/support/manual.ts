import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const repository = resolve(import.meta.dirname, '../..');

/** A command that a document tells its reader to type, as it is written there. */
export interface Typed {
  /** The last heading above it. */
  readonly section: string;
  readonly command: string;
}

/**
 * What a document of ours tells its reader to type, in order: blocks that are indented by four spaces or fenced without
 * a language. A comment behind a command is dropped. A loop of the shell is one command.
 */
export function typedIn(document: string): Typed[] {
  const found: Typed[] = [];
  let [section, fence, loop] = ['', '', ''];
  for (const line of readFileSync(join(repository, document), 'utf8').split('\n')) {
    if (line.startsWith('#') && fence === '') section = line.replace(/^#+ /, '');
    if (line.startsWith('```')) fence = fence === '' ? line : '';
    const typed = fence === '' ? /^ {4}(\S.*|\s+\S.*)$/.exec(line)?.[1] : fence === '```' ? line : undefined;
    if (typed === undefined || typed.startsWith('```') || typed === '') continue;
    const command = typed.replace(/\s{2,}#.*$/, '');
    loop = loop === '' ? command : `${loop}\n${command}`;
    if (loop.startsWith('for ') && command !== 'done') continue;
    found.push({ section, command: loop });
    loop = '';
  }
  return found;
}

/** Of these, what is typed in one section of the document. */
export function typedUnder(typed: readonly Typed[], section: string): string[] {
  return typed.filter((each) => each.section === section).map(({ command }) => command);
}
