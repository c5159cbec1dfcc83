import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const documents = ['', 'docs/', 'docs/decisions/'].flatMap((folder) =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `${folder}${name}`),
);

t.test('every relative link and every named file of the tree leads somewhere', async (t) => {
  t.ok(documents.length >= 30);
  for (const file of documents) {
    const text = readFileSync(join(root, file), 'utf8');
    const links = [...text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, to = '']) =>
      join(dirname(file), to),
    );
    const named = [...text.matchAll(/`((?:src|test|systemd|scripts)\/[\w@./-]*\w\.\w+)(?::\d+)?`/g)].map(
      ([, path = '']) => path,
    );
    for (const path of [...links, ...named]) t.ok(existsSync(join(root, path)), `${file} names ${path}`);
  }
});

for (const document of ['SECURITY.md', 'docs/reliability.md', 'docs/guards.md'])
  t.test(`every test that ${document} names exists under that name`, async (t) => {
    const rows = readFileSync(join(root, document), 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('| ') && line.includes('.test.ts'));
    t.ok(rows.length > 15);
    for (const row of rows) {
      for (const [, file = '', names = ''] of row.matchAll(/`(test\/[\w/-]+\.test\.ts)`: ([^|`]*)/g)) {
        const source = readFileSync(join(root, file), 'utf8');
        const titles = [...names.matchAll(/“([^”]+)”/g)].map(([, title = '']) => title);
        t.ok(titles.length > 0, `${file} is named with a test`);
        for (const title of titles) t.ok(source.includes(title), `${file}: ${title}`);
      }
    }
  });

t.test(
  'each fault in docs/reliability.md names a test, and each file with the name of its test',
  async (t) => {
    const rows = readFileSync(join(root, 'docs/reliability.md'), 'utf8')
      .split('\n')
      .filter((line) => /^\| (?!Fault|Report)/.test(line));
    t.ok(rows.length > 70, `${rows.length} faults`);
    for (const row of rows) {
      const tests = row.split(' | ').at(-1) ?? '';
      const files = tests.match(/`test\/[\w/-]+\.test\.ts`/g) ?? [];
      t.ok(files.length > 0, row);
      t.equal(tests.match(/\.test\.ts`: “/g)?.length, files.length, row);
    }
  },
);
