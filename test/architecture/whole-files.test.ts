import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseSync, Visitor } from 'oxc-parser';
import t from 'tap';
import { sourceFiles } from './rules.ts';

const root = resolve(import.meta.dirname, '../..');
const WRITER = 'src/host/whole-file.ts';

/** Files that rename or link what is on disk already, and write nothing that way. */
const MOVE_ONLY: ReadonlyMap<string, string> = new Map([
  ['src/host/files.ts', 'keeps former versions of a file'],
  ['src/daemon/identity/state.ts', 'keeps the former generation, and sets an old identity aside'],
  ['src/daemon/local-state.ts', 'sets a damaged file aside'],
  ['src/daemon/audit/trail.ts', 'keeps a full trail as the former one'],
  ['src/cli/commands/web.ts', 'gives a directory that was copied to its end its name'],
]);

/** What puts a file in its place, and what waits for the disk. */
const MOVES = /^(rename|link|symlink|copyFile)(Sync)?$/;
const WAITS = /^(fsync|fdatasync)(Sync)?$/;
const HANDLE_WAITS = new Set(['sync', 'datasync']);

/** @returns what of a writer of whole files stands in this file */
function writerIn(file: string, text: string): string[] {
  const found: string[] = [];
  const { program } = parseSync(file, text);
  const judge = (name: string): void => {
    if (MOVES.test(name) || WAITS.test(name)) found.push(name);
  };
  new Visitor({
    ImportDeclaration: ({ source, specifiers }) => {
      if (!/^(node:)?fs(\/promises)?$/.test(source.value)) return;
      for (const each of specifiers)
        if (each.type === 'ImportSpecifier' && each.imported.type === 'Identifier') judge(each.imported.name);
    },
    MemberExpression: ({ property }) => {
      if (property.type !== 'Identifier') return;
      judge(property.name);
      if (HANDLE_WAITS.has(property.name)) found.push(property.name);
    },
    ObjectExpression: ({ properties }) => {
      // An option of `writeFile`; other things have a method or a parameter of this name.
      for (const each of properties)
        if (each.type === 'Property' && /^flush: *true$/.test(text.slice(each.start, each.end)))
          found.push('flush');
    },
  }).visit(program);
  return found;
}

t.test('one function writes files whole or not at all', async (t) => {
  const seen = new Map<string, string[]>();
  for (const file of sourceFiles(root)) {
    const found = writerIn(file, readFileSync(join(root, file), 'utf8'));
    if (found.length > 0) seen.set(file, [...new Set(found)].sort());
  }
  t.strictSame(seen.get(WRITER), ['link', 'rename', 'sync']);
  for (const [file, found] of seen) {
    if (file === WRITER) continue;
    t.ok(MOVE_ONLY.has(file), `${file} has ${found.join(', ')}: call wholeFile or replaceWhole of ${WRITER}`);
    t.notOk(
      found.some((name) => !MOVES.test(name)),
      `${file} waits for the disk itself (${found.join(', ')}): call wholeFile or replaceWhole of ${WRITER}`,
    );
  }
  for (const file of MOVE_ONLY.keys()) t.ok(seen.has(file), `${file} still moves files`);
});

t.test('a second writer is found, however it is written', async (t) => {
  for (const text of [
    "import { rename } from 'node:fs/promises';\nawait rename(a, b);",
    "import { rename as put } from 'fs/promises';",
    "import { renameSync, writeFileSync } from 'node:fs';",
    "import * as fs from 'node:fs/promises';\nawait fs.rename(a, b);",
    "import fs from 'node:fs';\nfs.promises.link(a, b);",
    "const { open } = await import('node:fs/promises');\nawait (await open(a)).sync();",
    'await handle.datasync();',
    "import { fsyncSync } from 'node:fs';",
    'await writeFile(a, b, { flush: true });',
    "import { copyFile } from 'node:fs/promises';",
  ])
    t.ok(writerIn('src/x.ts', text).length > 0, text);
  for (const text of [
    "import { writeFile, open } from 'node:fs/promises';\nawait writeFile(a, b);",
    "import { rename } from './names.ts';\nrename(a);",
    'const renamed = sync(a);',
  ])
    t.same(writerIn('src/x.ts', text), [], text);
});
