import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { sourceFiles } from '../../architecture/rules.ts';
import { codesIn, codesUnder } from './codes.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const FILE = 'docs/troubleshooting.md';
/** `wire` gives reasons inside other messages; no code of it reaches an operator. */
const SOURCES = sourceFiles(root).filter((file) => !file.startsWith('src/daemon/wire/'));
const seen = codesUnder(root, SOURCES);

/** The codes in the first column of the tables, in order. A row may carry several. */
function documentedCodes(): string[] {
  return readFileSync(join(root, FILE), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .flatMap((line) =>
      [...(line.split(' | ')[0] ?? '').matchAll(/`([^`]+)`/g)].map(([, code]) => code ?? ''),
    );
}

t.test('every code that the source can give an operator is in the troubleshooting document', async (t) => {
  const documented = new Set(documentedCodes());
  t.ok(seen.length > 200, 'the scan found the codes');
  const missing = seen.filter(({ code }) => !documented.has(code));
  t.same(
    missing.map(({ code, file, line }) => `${code} (${file}:${line})`),
    [],
    `each needs a row in ${FILE}`,
  );
});

t.test('the troubleshooting document speaks of no code that does not exist, and of none twice', async (t) => {
  const known = new Set(seen.map(({ code }) => code));
  const documented = documentedCodes();
  t.same(
    documented.filter((code) => !known.has(code)),
    [],
  );
  t.same(
    documented.filter((code, index) => documented.indexOf(code) !== index),
    [],
  );
});

t.test('every row says what is meant and what to do', async (t) => {
  const rows = readFileSync(join(root, FILE), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| `'));
  for (const row of rows) {
    const cells = row.slice(2, -2).split(' | ');
    t.equal(cells.length, 3, row);
    t.ok(
      cells.slice(1).every((cell) => cell.trim().length > 7),
      row,
    );
  }
});

t.test('the messages of the dead-man switch are those of its script', async (t) => {
  const script = readFileSync(join(root, 'systemd/deadman'), 'utf8');
  const text = readFileSync(join(root, FILE), 'utf8');
  const table = text.slice(
    text.indexOf('Messages of the dead-man switch'),
    text.indexOf('## Floating IPs by API'),
  );
  const messages = [...table.matchAll(/^\| ([^|`]+) \| [^-].*\|$/gm)]
    .map(([, message = '']) => message)
    .slice(1);
  t.equal(messages.length, 3);
  for (const message of messages)
    for (const part of message.split(/ADDRESS|DEVICE|FILE|\bN\b|…/).map((each) => each.trim()))
      t.ok(script.includes(part), `${message}: ${part}`);
});

t.test('the scan sees a code in each of the ways in which the source gives one', async (t) => {
  const source = [
    "throw new OperatorError('by-constructor', message, next);",
    "throw new CliFailure(EXIT.usage, 'by-second-argument', message, next);",
    "throw new IdentityError({ code: 'by-object', message, next: 'do' });",
    "const error = { code: open ? 'one-side' : 'other-side', message, next };",
    'function refused(code: string, message: string) { return new IdentityError({ code, message, next }); }',
    "throw refused('by-function', message);",
    "this.#events.onNote('by-callback', undefined, detail);",
    "class Refused extends Error { readonly code = 'by-class'; }",
    "const none = { code: 'without-next', message }; readFile(name, 'utf8');",
  ].join('\n');
  t.same(
    codesIn(root, 'src/example.ts', source).map(({ code, line }) => [code, line]),
    [
      ['by-constructor', 1],
      ['by-second-argument', 2],
      ['by-object', 3],
      ['one-side', 4],
      ['other-side', 4],
      ['by-function', 6],
      ['by-callback', 7],
      ['by-class', 8],
    ],
  );
});
