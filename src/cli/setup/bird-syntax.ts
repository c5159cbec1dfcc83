import { readdir, readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';

/** As in BIRD's own lexer: strings have no escapes, comments are `#` to the end of the line and those of C. */
const TOKEN = /\/\*[\s\S]*?(?:\*\/|$)|#[^\n]*|"([^"\n]*)"|[A-Za-z0-9_.:/]+|[^\s]/g;

interface Token {
  readonly text: string;
  readonly string: boolean;
}

/** Words, strings and signs of a bird.conf, without its comments. */
function tokensOf(text: string): Token[] {
  return [...text.matchAll(TOKEN)]
    .filter(([whole]) => !whole.startsWith('/*') && !whole.startsWith('#'))
    .map(([whole, string]) => ({ text: string ?? whole, string: string !== undefined }));
}

/** The patterns of the includes of a file, unchanged. */
export function includesIn(text: string): string[] {
  const tokens = tokensOf(text);
  return tokens
    .filter(({ string }, index) => {
      const before = tokens[index - 1];
      return string && before?.text === 'include' && !before.string;
    })
    .map((token) => token.text);
}

/** BIRD itself refuses deeper nesting (8, in its lexer); a founder's directory holds a few files. */
const MAX_DEPTH = 8;
const MAX_FILES = 200;

/**
 * Whether BIRD reads `target` if it starts with `file`, directly or through other files. A relative pattern starts in
 * the directory of its file, as in BIRD.
 */
export async function isIncluded(file: string, target: string): Promise<boolean> {
  const seen = new Set<string>();
  const look = async (path: string, depth: number): Promise<boolean> => {
    if (depth > MAX_DEPTH || seen.size >= MAX_FILES || seen.has(path)) return false;
    seen.add(path);
    const text = await readFile(path, 'utf8').catch(() => '');
    for (const pattern of includesIn(text)) {
      const whole = resolve(dirname(path), pattern);
      if (matcher(whole).test(target)) return true;
      for (const next of await expanded(whole)) if (await look(next, depth + 1)) return true;
    }
    return false;
  };
  return await look(file, 0);
}

/** glob(3): a wildcard matches no slash and no leading dot. */
function matcher(pattern: string): RegExp {
  const source = pattern.replaceAll(/[.+^${}()|\\]/g, String.raw`\$&`);
  return new RegExp(`^${source.replaceAll('*', '[^/]*').replaceAll('?', '[^/]')}$`);
}

/** Files of one directory; a pattern in the name of a directory is not followed. */
async function expanded(pattern: string): Promise<string[]> {
  const directory = dirname(pattern);
  if (!/[*?[]/.test(pattern)) return [pattern];
  const names = await readdir(directory).catch(() => []);
  const fits = matcher(pattern);
  return names
    .filter((name) => !name.startsWith('.'))
    .map((name) => join(directory, name))
    .filter((path) => fits.test(path))
    .sort();
}

/** Words inside the protocols of a packaged bird.conf. */
const SHIPPED_WORDS = new Set('disabled ipv4 ipv6 import export all none scan time'.split(' '));
const SHIPPED_PROTOCOLS = new Set(['device', 'direct', 'kernel', 'static']);
const SHIPPED_STATEMENTS = new Set(['log', 'router', 'debug', 'timeformat', 'watchdog']);

/**
 * Whether a bird.conf is still the one of a package: it has no sessions, no routes and no addresses. Only known
 * packaged content counts; anything else was written by a person.
 */
export function isUntouched(birdConf: string): boolean {
  const tokens = tokensOf(birdConf).map(({ text }) => text);
  for (let at = 0; at < tokens.length; ) {
    const end = endOf(tokens, at);
    if (!isShipped(tokens.slice(at, end))) return false;
    at = end;
  }
  return true;
}

/** After the `;` or the closing brace of the statement at `start`. */
function endOf(tokens: readonly string[], start: number): number {
  let depth = 0;
  for (let at = start; at < tokens.length; at += 1) {
    if (tokens[at] === '{') depth += 1;
    else if (tokens[at] === '}') depth -= 1;
    if (depth <= 0 && (tokens[at] === ';' || tokens[at] === '}')) return at + 1;
  }
  return tokens.length;
}

function isShipped(statement: readonly string[]): boolean {
  const [first = '', kind = ''] = statement;
  if (first === ';' || SHIPPED_STATEMENTS.has(first)) return true;
  if (first !== 'protocol' || !SHIPPED_PROTOCOLS.has(kind)) return false;
  const body = statement.slice(statement.indexOf('{'));
  // An enabled one reads this machine's addresses: packages ship it disabled.
  if (kind === 'direct' && !body.includes('disabled')) return false;
  return body.every((word) => /^[{};]$/.test(word) || /^\d+$/.test(word) || SHIPPED_WORDS.has(word));
}
