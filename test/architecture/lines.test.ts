import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t from 'tap';

/** What two files side by side, or a review, show without a break. */
const MOST_COLUMNS = 120;
const root = resolve(import.meta.dirname, '../..');

/** Code of ours and what reads like it. Pictures and recorded data are no lines that somebody reads. */
const FOLDERS: readonly (readonly [folder: string, of: RegExp])[] = [
  ['src', /\.(ts|tsx|css|html|webmanifest)$/],
  ['test', /\.(ts|tsx|sh)$/],
  ['scripts', /./],
  ['systemd', /./],
  ['docs', /\.md$/],
];
const GENERATED = /^src\/daemon\/wire\/gen\//;

/** A unit's command stays one line: as systemctl shows it, and as a search finds it. */
const ONE_LINE = /^Exec\w+=/;

/** Of a document only what is to be typed or copied counts: prose and tables are folded by whatever shows them. */
function blocksOf(text: string): string {
  let within = false;
  return text
    .split('\n')
    .map((line) => {
      if (/^\s*```/.test(line)) within = !within;
      return within ? line : '';
    })
    .join('\n');
}

/** @returns each line that is too long, by file, number and length */
function longLines(file: string, text: string): string[] {
  return (file.endsWith('.md') ? blocksOf(text) : text)
    .split('\n')
    .flatMap((line, at) =>
      [...line].length > MOST_COLUMNS && !(file.startsWith('systemd/') && ONE_LINE.test(line))
        ? [`${file}:${at + 1} has ${[...line].length} columns, more than ${MOST_COLUMNS}: fold it`]
        : [],
    );
}

t.test('each line of code and its comments fits beside another', async (t) => {
  const files = FOLDERS.flatMap(([folder, of]) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8', withFileTypes: true })
      .filter((each) => each.isFile() && of.test(each.name))
      .map((each) => join(each.parentPath, each.name).slice(root.length + 1)),
  ).filter((file) => !GENERATED.test(file));
  t.ok(files.length > 600, `${files.length} files were looked at`);
  for (const [folder] of FOLDERS)
    t.ok(
      files.some((file) => file.startsWith(`${folder}/`)),
      `some of ${folder}`,
    );
  t.same(
    files.flatMap((file) => longLines(file, readFileSync(join(root, file), 'utf8'))),
    [],
  );
});

t.test('a line that is too long is reported with its place', async (t) => {
  const long = 'ä'.repeat(MOST_COLUMNS + 1);
  const most = '→'.repeat(MOST_COLUMNS);
  t.same(longLines('src/x.ts', `${most}\n${long}\n`), [
    `src/x.ts:2 has 121 columns, more than ${MOST_COLUMNS}: fold it`,
  ]);
  t.equal(longLines('systemd/deadman', `# ${long}`).length, 1);
  t.equal(longLines('systemd/system/x.service', `ExecStart=/bin/echo ${long}`).length, 0);
  t.equal(longLines('systemd/system/x.service', `# ExecStart=${long}`).length, 1);
  t.equal(longLines('docs/x.md', `${long}\n\`\`\`sh\n${long}\n\`\`\`\n${long}`).length, 1);
});
