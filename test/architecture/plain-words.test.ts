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

/** Texts that members sign, compare or show to programs, and quoted names of tests: they stay as they are. */
const KEPT: readonly RegExp[] = [/'left by its own word'/, /' \(signed anew\)'/, /peer-hung-up/, /“[^”]*”/g];

/** @returns each private word with its place and the plain one */
function privateWords(file: string, text: string): string[] {
  return text.split('\n').flatMap((line, at) => {
    const seen = KEPT.reduce((rest, kept) => rest.replace(kept, ''), line);
    return PRIVATE.filter(([pattern]) => pattern.test(seen)).map(
      ([pattern, plain]) => `${file}:${at + 1} has ${pattern.exec(seen)?.[0]}: write ${plain}`,
    );
  });
}

function filesIn(folder: string, of: RegExp): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8', withFileTypes: true })
    .filter((each) => each.isFile() && of.test(each.name))
    .map((each) => join(each.parentPath, each.name).slice(root.length + 1))
    .filter((file) => !/\/gen\/|^docs\/demo/.test(file));
}

const read = (file: string): string => readFileSync(join(root, file), 'utf8');

t.test('code, units and documents use plain words', async (t) => {
  const files = [
    ...filesIn('src', /\.(ts|tsx|html)$/),
    ...filesIn('systemd', /./),
    ...filesIn('rpm', /\.(spec|conf|cil|service|sh|yaml)$/),
    ...filesIn('docs', /\.md$/),
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

t.test('a private word is reported with its place and the plain one', async (t) => {
  t.same(privateWords('x', 'a\nthe link is dialled anew'), ['x:2 has anew: write again']);
  t.equal(privateWords('x', 'it was hung up on').length, 1);
  t.equal(privateWords('x', 'up by its own word').length, 1);
  t.equal(privateWords('x', "note('peer-hung-up')").length, 0);
});
