import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t from 'tap';
import {
  awaitsAfterTests,
  cyclesIn,
  forbidden,
  importsOf,
  impurities,
  longFunctions,
  MOST_LINES,
  PURE_ROOMS,
  ROOMS,
  sourceFiles,
} from './rules.ts';

const root = resolve(import.meta.dirname, '../..');
const files = sourceFiles(root);

t.test('every import in src is one that its room allows', async (t) => {
  const seen = files.flatMap((file) => importsOf(root, file));
  t.ok(seen.length > 200, `${seen.length} imports were looked at`);
  for (const room of ROOMS) {
    t.ok(
      files.some((file) => room.of.test(file)),
      `some file stands in ${room.of.source}`,
    );
  }
  t.same(
    seen.flatMap((each) => forbidden(each) ?? []),
    [],
  );
});

t.test('no file of src imports another in a circle', async (t) => {
  t.same(cyclesIn(files.flatMap((file) => importsOf(root, file))), []);
});

/** What joins the rooms; each further program adds about forty lines to its list. */
const MOST_IN_ROOT = { file: 350, all: 2040 };

t.test('what joins the rooms stays smaller than what it joins', async (t) => {
  const sizes = files
    .filter((file) => file.startsWith('src/daemon/node/'))
    .map((file) => ({ file, lines: readFileSync(join(root, file), 'utf8').split('\n').length - 1 }));
  t.same(
    sizes.filter(({ lines }) => lines > MOST_IN_ROOT.file),
    [],
  );
  const sum = sizes.reduce((all, { lines }) => all + lines, 0);
  t.ok(sum > 1000 && sum <= MOST_IN_ROOT.all, `src/daemon/node has ${sum} lines`);
});

t.test('each function fits on one screen', async (t) => {
  t.same(
    files.flatMap((file) => longFunctions(file, readFileSync(join(root, file), 'utf8'))),
    [],
  );
  const of = (lines: number) => `const f = () => {\n${'f();\n'.repeat(lines - 2)}};\n`;
  t.same(longFunctions('x.ts', of(MOST_LINES)), []);
  t.same(longFunctions('x.ts', `\n${of(MOST_LINES + 1)}`), ['x.ts:2 is a function of 71 lines: split it']);
});

t.test('a circle of imports is found, whatever its length', async (t) => {
  const line = (...names: string[]) =>
    names.slice(1).map((target, at) => ({ file: names[at] ?? '', target, own: true }));
  const end = (name: string) => ({ file: name, target: 'node:fs', own: false });
  t.same(cyclesIn([...line('a', 'b', 'c'), end('c')]), []);
  t.same(cyclesIn(line('a', 'b', 'a')), [['a', 'b']]);
  t.same(cyclesIn([...line('x', 'a', 'b', 'c', 'd', 'a'), ...line('b', 'e'), end('e')]), [
    ['a', 'b', 'c', 'd'],
  ]);
});

t.test('pure rooms have no clock, randomness, I/O or async', async (t) => {
  const pure = files.filter((file) => PURE_ROOMS.test(file));
  t.ok(pure.length > 10, `${pure.length} pure files were looked at`);
  t.same(
    pure.flatMap((file) => impurities(file, readFileSync(join(root, file), 'utf8'))),
    [],
  );
});

/** Where each plugin answers the same question. */
const FIVE = ['desired.ts', 'observe.ts', 'plan.ts', 'apply.ts', 'plugin.ts'];

t.test('each plugin has the same five files', async (t) => {
  const inPlugins = files.filter((file) => file.startsWith('src/plugins/') && file.split('/').length === 4);
  const names = [...new Set(inPlugins.map((file) => file.split('/')[2] ?? ''))];
  t.ok(names.length >= 7, `${names.length} plugins`);
  const missing = names.flatMap((name) =>
    FIVE.map((file) => `src/plugins/${name}/${file}`).filter((file) => !inPlugins.includes(file)),
  );
  t.same(missing, []);
});

t.test('a forbidden import is reported with its reason', async (t) => {
  const one = (file: string, text: string) => importsOf(root, file, text).map(forbidden)[0];
  t.match(
    one('src/daemon/membership/x.ts', "import { readFile } from 'node:fs';"),
    /membership imports only itself/,
  );
  t.match(
    one('src/daemon/membership/x.ts', "import type { A } from '../wire/record.ts';"),
    /membership imports only itself/,
  );
  t.match(
    one('src/plugins/bird/x.ts', "import '../haproxy/plan.ts';"),
    /never the daemon, a role or another plugin/,
  );
  t.match(one('src/plugins/bird/x.ts', "export * from '../../daemon/log.ts';"), /never the daemon/);
  t.match(one('src/roles/app.ts', "import { X } from '../plugins/haproxy/plugin.ts';"), /a role is policy/);
  t.match(
    one('src/daemon/driver/driver.ts', "const x = await import('../../plugins/contract.ts');"),
    /sees no plugin/,
  );
  t.match(one('src/daemon/driver/driver.ts', "import '../node/scene.ts';"), /outside its composition root/);
  t.match(one('src/cli/x.ts', "import '../daemon/driver.ts';"), /through its socket/);
  t.match(one('src/nowhere/x.ts', "import 'node:fs';"), /stands in no room/);
  t.equal(one('src/plugins/bird/x.ts', "import '../../host/files.ts';"), undefined);
});

t.test('an impurity is reported with its reason', async (t) => {
  const one = (text: string) => impurities('src/daemon/membership/x.ts', text);
  for (const text of [
    'const a = Date.now();',
    'const a = Math.random();',
    'const a = new Date();',
    'setTimeout(f, 1);',
    'const a = process.env;',
    'async function f() {}',
    'const f = async () => 1;',
    'const p = new Promise(() => {});',
  ]) {
    t.equal(one(text).length > 0, true, text);
  }
  t.same(one('const a = new Date(5).toISOString(); const b = Math.max(1, 2);'), []);
});

t.test('no test file waits at its top level after a test was registered', async (t) => {
  const tests = sourceFiles(root, 'test').filter((file) => file.endsWith('.test.ts'));
  t.ok(tests.length > 100, `${tests.length} test files were looked at`);
  t.same(
    tests.flatMap((file) => awaitsAfterTests(file, readFileSync(join(root, file), 'utf8'))),
    [],
  );
});

t.test('a top-level await after a test is reported with its reason', async (t) => {
  const at = (text: string) => awaitsAfterTests('x.test.ts', `import t from 'tap';\n${text}`).length;
  for (const text of [
    "t.test('a', async () => {});\nconst b = await c();",
    'for (const each of cases) t.test(each, async () => {});\nawait c();',
    'cases.forEach((each) => t.test(each, async () => {}));\nawait c();',
    't.before(f);\nfor await (const each of c()) f(each);',
    't.test.skip(1);\nawait using b = c();',
    'registerIn(t);\nif (b) await c();',
  ]) {
    t.equal(at(text), 1, text);
  }
  for (const text of [
    "const b = await c();\nt.test('a', async () => {});",
    "t.setTimeout(5);\nt.teardown(() => b());\nconst d = join(t.testdir(), 'd');\nawait c();",
    "t.test('a', async () => {\n  await c();\n});",
    "const check = async (t: Test) => t.test('a', async () => {});\nawait c();",
  ]) {
    t.equal(at(text), 0, text);
  }
  t.match(awaitsAfterTests('x.test.ts', "import t from 'tap';\nt.test('a', f);\n\nawait c();"), [
    /^x\.test\.ts:4 awaits at the top level .* does not exist yet/,
  ]);
});

/** Sentences are made for people at the edge; code that reads one back breaks when somebody improves its words. */
const READS_A_SENTENCE = [
  /split\(['"`] -- ['"`]\)/,
  /startsWith\(['"`](kept|held|not synced)/,
  /split\(\/\[\^[A-Za-z]/,
  /(message|reason|why|detail|summary) === ['"`]\w+ \w/,
  /(message|reason|why|detail|summary)\.(startsWith|endsWith|includes|match|split)\(['"`/]\w+ \w/,
];
const readsASentence = (text: string): boolean => READS_A_SENTENCE.some((each) => each.test(text));

t.test('no source file reads back what was written for people', async (t) => {
  const files = sourceFiles(root, 'src');
  t.ok(files.length > 200, `${files.length} files were looked at`);
  t.same(
    files.filter((file) => readsASentence(readFileSync(join(root, file), 'utf8'))),
    [],
  );
  for (const text of [
    "const [what, next] = text.split(' -- ');",
    "members.filter((member) => member.reason.startsWith('kept from before'))",
    "if (why.includes('last one standing')) return;",
    'const words = texts.flatMap((text) => text.split(/[^A-Za-z0-9./-]+/));',
    "const stopped = check.detail === 'connection refused';",
  ])
    t.ok(readsASentence(text), text);
  t.notOk(readsASentence("names.filter((name) => name.startsWith('services.'))"));
  t.notOk(readsASentence("const refused = verdict.failure === 'refused';"));
});

/** One loop waits: so each wait has a deadline, patience with a busy machine, and says what it waited for. */
const DECLARES_UNTIL = /\bfunction until\b|\b(const|let) until\b/;

t.test('one function of the tests waits for a condition', async (t) => {
  const declaring = sourceFiles(root, 'test').filter((file) =>
    DECLARES_UNTIL.test(readFileSync(join(root, file), 'utf8')),
  );
  t.same(declaring, ['test/support/until.ts']);
});
