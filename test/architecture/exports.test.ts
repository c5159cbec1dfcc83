import { readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { parseSync } from 'oxc-parser';
import t from 'tap';
import { sourceFiles } from './rules.ts';

const root = resolve(import.meta.dirname, '../..');
const ALL = '*';

interface Seen {
  readonly exported: readonly { readonly name: string; readonly line: number }[];
  /** Whose names the file uses: its imports and what it exports of others. */
  readonly used: readonly { readonly file: string; readonly name: string }[];
}

const isDefault = (kind: string): boolean => kind === 'Default';

function namesIn(file: string, text: string): Seen {
  const { module } = parseSync(file, text);
  const fileOf = (specifier: string): string =>
    relative(root, resolve(root, dirname(file), specifier)).replaceAll('\\', '/');
  const entries = module.staticExports.flatMap((each) => each.entries);
  return {
    exported: entries.map(({ exportName, start }) => ({
      name: exportName.name ?? exportName.kind.toLowerCase(),
      line: text.slice(0, start).split('\n').length,
    })),
    used: [
      ...module.staticImports.flatMap(({ moduleRequest, entries: imported }) =>
        imported.map(({ importName }) => ({
          file: fileOf(moduleRequest.value),
          name: isDefault(importName.kind) ? 'default' : (importName.name ?? ALL),
        })),
      ),
      ...entries.flatMap(({ moduleRequest, importName }) =>
        moduleRequest === null ? [] : [{ file: fileOf(moduleRequest.value), name: importName.name ?? ALL }],
      ),
      // What becomes of a module that is loaded later is not followed.
      ...module.dynamicImports.map(({ moduleRequest: { start, end } }) => ({
        file: fileOf(text.slice(start + 1, end - 1)),
        name: ALL,
      })),
    ],
  };
}

/** @returns each export of `src` that no other file uses, with its place */
function unusedExports(texts: ReadonlyMap<string, string>): string[] {
  const seen = [...texts].map(([file, text]) => ({ file, ...namesIn(file, text) }));
  const used = new Set(seen.flatMap((each) => each.used.map(({ file, name }) => `${file} ${name}`)));
  return seen
    .filter(({ file }) => file.startsWith('src/') && !used.has(`${file} ${ALL}`))
    .flatMap(({ file, exported }) =>
      exported
        .filter(({ name }) => !used.has(`${file} ${name}`))
        .map(({ name, line }) => `${file}:${line} exports ${name}, and no other file imports it`),
    );
}

t.test('each export of src is imported by another file', async (t) => {
  const files = ['src', 'test', 'scripts']
    .flatMap((folder) => sourceFiles(root, folder))
    .filter((file) => !file.startsWith('src/daemon/wire/gen/'));
  t.ok(files.length > 700, `${files.length} files were read`);
  t.same(unusedExports(new Map(files.map((file) => [file, readFileSync(join(root, file), 'utf8')]))), []);
});

t.test('an export that is used in its own file only is reported with its place', async (t) => {
  const own = ['src/a.ts', '\nexport interface A {}\nexport const f = (a: A) => a;'] as const;
  const unused = (...others: readonly (readonly [string, string])[]) =>
    unusedExports(new Map([own, ...others]));
  t.same(unused(['src/b.ts', "import { f } from './a.ts';"]), [
    'src/a.ts:2 exports A, and no other file imports it',
  ]);
  t.same(unused(['test/b.ts', "import { type A, f as g } from '../src/a.ts';"]), []);
  t.same(unused(['test/b.ts', "import * as a from '../src/a.ts';"]), []);
  t.same(unused(['test/b.ts', "const { f } = await import('../src/a.ts');"]), []);
  t.same(unused(['src/b.ts', "export { A } from './a.ts';\nexport default 1;"]), [
    'src/a.ts:3 exports f, and no other file imports it',
    'src/b.ts:1 exports A, and no other file imports it',
    'src/b.ts:2 exports default, and no other file imports it',
  ]);
});
