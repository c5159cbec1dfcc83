import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseSync, Visitor } from 'oxc-parser';
import t from 'tap';

const root = resolve(import.meta.dirname, '../..');
const STARTER = 'test/support/with-us.ts';

/** What starts a program that goes on beside the test. The others of node:child_process run a command to its end. */
const STARTERS = new Set(['spawn', 'fork', 'exec', 'all of it']);

/** Files that start a program by themselves, and what ends it with them. */
const OTHERS: ReadonlyMap<string, string> = new Map([
  [STARTER, 'the kernel, as all others ask it to'],
  ['test/lab/namespace.ts', 'the place: all of its cgroup is killed when its owner ends'],
  ['test/lab/delay-relay.ts', 'the place, in whose cgroup it runs'],
  ['test/lab/place.ts', 'this is what waits for the owner’s end, and ends itself afterwards'],
  ['test/lab/process.ts', 'its time limit, and the kernel where the test decides when'],
  ['test/lab/main.ts', 'the person who uses the lab: `down`, or the shell that they are in'],
  ['test/run.ts', 'Ctrl-C, which reaches all of the terminal'],
  ['test/unit/plugins/command.test.ts', 'itself: true(1)'],
]);

const files = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => `test/${file}`);

/** @returns what of node:child_process this file can start a program with that goes on beside it */
function startersIn(file: string, text: string): string[] {
  if (!text.includes('child_process')) return [];
  const found: string[] = [];
  new Visitor({
    ImportDeclaration: ({ source, specifiers, importKind }) => {
      if (!/^(node:)?child_process$/.test(source.value) || importKind === 'type') return;
      for (const each of specifiers) {
        if (each.type !== 'ImportSpecifier') found.push('all of it');
        else if (each.importKind !== 'type' && each.imported.type === 'Identifier')
          found.push(each.imported.name);
      }
    },
    ImportExpression: ({ source }) => {
      if (source.type === 'Literal' && /^(node:)?child_process$/.test(String(source.value)))
        found.push('all of it');
    },
  }).visit(parseSync(file, text).program);
  return found.filter((name) => STARTERS.has(name));
}

t.test('a program that a test starts ends with the test, however that ends', async (t) => {
  t.ok(files.length > 250, `${files.length} files were looked at`);
  const starting = files.filter(
    (file) => startersIn(file, readFileSync(join(root, file), 'utf8')).length > 0,
  );
  for (const file of starting)
    t.ok(OTHERS.has(file), `${file}: start it with spawnWithUs of ${STARTER}, so that it ends with the test`);
  for (const file of OTHERS.keys()) t.ok(starting.includes(file), `${file} still starts programs itself`);
});

t.test('a starter is seen in each way of importing it', async (t) => {
  const seen = (text: string) => startersIn('x.ts', text);
  t.same(seen("import { execFile, spawn } from 'node:child_process';"), ['spawn']);
  t.same(seen("import { type ChildProcess, fork as start } from 'child_process';"), ['fork']);
  t.same(seen("import * as programs from 'node:child_process';"), ['all of it']);
  t.same(seen("import programs from 'node:child_process';"), ['all of it']);
  t.same(seen("const { spawn } = await import('node:child_process');"), ['all of it']);
  t.same(seen("import { type ChildProcess, execFileSync } from 'node:child_process';"), []);
  t.same(seen("import type { spawn } from 'node:child_process';"), []);
});
