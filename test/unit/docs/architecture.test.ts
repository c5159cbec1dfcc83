import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseSync, Visitor } from 'oxc-parser';
import t from 'tap';

const root = resolve(import.meta.dirname, '../../..');
const lines = readFileSync(join(root, 'ARCHITECTURE.md'), 'utf8').split('\n');

/** Names of the functions and methods that a file defines, `#` included. */
function functionsIn(file: string): Set<string> {
  const text = readFileSync(join(root, file), 'utf8');
  const names = new Set<string>();
  new Visitor({
    FunctionDeclaration: ({ id }) => void (id !== null && names.add(id.name)),
    MethodDefinition: ({ key }) => {
      if (key.type === 'Identifier') names.add(key.name);
      if (key.type === 'PrivateIdentifier') names.add(`#${key.name}`);
    },
  }).visit(parseSync(file, text).program);
  return names;
}

t.test('each hop of the life of one change is a function that exists', async (t) => {
  const from = lines.indexOf('## The life of one change');
  const table = lines.slice(from, lines.indexOf('## How many of each thing'));
  const hops = table.flatMap((line) => {
    const [, file, name] = /\| `(src\/[^`]+)` \| `([^`]+)` \|$/.exec(line) ?? [];
    return file === undefined || name === undefined ? [] : [{ file, name }];
  });
  t.ok(from > 0 && hops.length >= 8, `${hops.length} hops`);
  for (const { file, name } of hops) t.ok(functionsIn(file).has(name), `${name} in ${file}`);
});

t.test('the document fits into one reading', async (t) => {
  t.ok(lines.length <= 151, `${lines.length} lines`);
  t.same(
    lines.filter((line) => [...line].length > 120),
    [],
  );
});

t.test('a function that does not exist is not found', async (t) => {
  t.notOk(functionsIn('src/roles/guards.ts').has('unguarded'));
  t.ok(functionsIn('src/daemon/driver/driver.ts').has('#turn'));
});
