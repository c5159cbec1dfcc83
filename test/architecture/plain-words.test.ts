import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t from 'tap';

const root = resolve(import.meta.dirname, '../..');

/** Words of our own where the field has a plain one: a reader with English as a second language reads them twice. */
const PRIVATE: readonly (readonly [pattern: RegExp, plain: string])[] = [
  [/\bhearsay\b/, 'an unconfirmed report'],
  [/\bhung (up|on)\b|\bhangs? up\b|\bhang-up\b/, 'disconnected'],
  [/\banew\b/, 'again'],
  [/\b(its|his|their|our|'s|’s) own words?\b/, 'its report, message or record'],
  [/\ball the same\b/, 'nevertheless'],
  [/\bas (it|they) should be\b/, 'correct'],
  [/\bnobody else['’]s\b/, 'only its own'],
  [/\blooks? why\b/, 'see why'],
  [/\bfresh token\b/, 'a new token'],
];

/** What the name of a test uses in addition: it is one sentence, read without what stands around it. */
const PRIVATE_IN_NAMES: typeof PRIVATE = [
  ...PRIVATE,
  [/\b(told|tells?|telling)\b/, 'is reported, notified or recognised'],
  [/\bwords?\b/, 'a record, message, report or text'],
  [/\bhang(s|ing)?\b|\bhung\b/, 'never answers, never ends'],
  [/\bstands?\b|\bstood\b/, 'is'],
  [/\blook(s|ed|ing)?\b/, 'checks, observes, reads'],
  [/\bhear(s|d|ing)?\b/, 'receives, reachable'],
  [/\b(is|are|was|were|be|and|unless one is) said\b|[,:] said\b|\bsa(id|y|ys) so\b/, 'is reported'],
  [/\bof (now|before)\b/, 'present, former'],
  [/\bunder way\b/, 'open, not finished'],
];

/** Texts that members sign, compare or show to programs, and quoted names of tests: they stay as they are. */
const KEPT: readonly RegExp[] = [/'left by its own word'/, /' \(signed anew\)'/, /peer-hung-up/, /“[^”]*”/g];

/** @returns each private word with its place and the plain one */
function privateWords(file: string, text: string, terms = PRIVATE): string[] {
  return text.split('\n').flatMap((line, at) => {
    const seen = KEPT.reduce((rest, kept) => rest.replace(kept, ''), line);
    return terms
      .filter(([pattern]) => pattern.test(seen))
      .map(([pattern, plain]) => `${file}:${at + 1} has ${pattern.exec(seen)?.[0]}: write ${plain}`);
  });
}

/** @returns the names that are literals */
function testNames(text: string): string[] {
  return [...text.matchAll(/\bt\.test\(\s*(?:'([^'\n]+)'|"([^"\n]+)"|`([^`]+)`)/g)].map(
    ([, single, double, template]) => single ?? double ?? template ?? '',
  );
}

function filesIn(folder: string, of: RegExp): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8', withFileTypes: true })
    .filter((each) => each.isFile() && of.test(each.name))
    .map((each) => join(each.parentPath, each.name).slice(root.length + 1))
    .filter((file) => !/\/gen\/|^docs\/demo/.test(file));
}

const read = (file: string): string => readFileSync(join(root, file), 'utf8');

t.test('code, units and documents use plain language', async (t) => {
  const files = [
    ...filesIn('src', /\.(ts|tsx|html)$/),
    ...filesIn('systemd', /./),
    ...filesIn('rpm', /\.(spec|conf|cil|service|sh|yaml)$/),
    ...filesIn('docs', /\.md$/),
    ...filesIn('monitoring', /\.(yml|json)$/),
    'README.md',
    'ARCHITECTURE.md',
    'CONTRIBUTING.md',
    'SECURITY.md',
    'CHANGELOG.md',
  ];
  t.ok(files.length > 450, `${files.length} files were read`);
  t.same(
    files.flatMap((file) => privateWords(file, read(file))),
    [],
  );
});

t.test('names of tests use plain language', async (t) => {
  const names = filesIn('test', /\.ts$/).flatMap((file) =>
    testNames(read(file)).map((name) => ({ file, name })),
  );
  t.ok(names.length > 1400, `${names.length} names were read`);
  t.same(
    names.flatMap(({ file, name }) => privateWords(`${file} “${name}”`, name, PRIVATE_IN_NAMES)),
    [],
  );
});

t.test('a banned term is reported with its place and the plain one', async (t) => {
  t.same(privateWords('x', 'a\nthe link is dialled anew'), ['x:2 has anew: write again']);
  t.equal(privateWords('x', 'it was hung up on').length, 1);
  t.equal(privateWords('x', 'up by its own word').length, 1);
  t.equal(privateWords('x', "note('peer-hung-up')").length, 0);
  t.same(testNames("t.test('one’s', f);\n  await t.test(\n    `${two}`, g); /x/.test('three');"), [
    'one’s',
    '${two}',
  ]);
  t.equal(privateWords('x', 'the damaged file is told', PRIVATE_IN_NAMES).length, 1);
  t.equal(privateWords('x', 'the last one standing', PRIVATE_IN_NAMES).length, 0);
});
