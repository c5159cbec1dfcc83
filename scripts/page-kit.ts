import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
/** The page's sources, and what makes the page of them, each at the same place as here. */
const FILES = ['src/web', 'scripts/page.ts', 'scripts/web.ts', 'tsconfig.json'];
/** What building and checking the page takes, in the versions that it was tried with. */
const PACKAGES = ['@types/node', 'esbuild', 'preact', 'typescript'];

const README = `# The page

    npm install
    npm run build     # makes dist/web
    npm run check     # types

\`src/web\` is the page: screens in \`screens.tsx\`, the example to replace in \`notes.tsx\`,
words in \`words-en.ts\` and \`words-de.ts\`, looks in \`app.css\`. It speaks to the API alone,
which is described at /api/openapi.json of your site.

To serve it, copy \`dist/web\` to each app node, name the place in
/etc/bornemisza/accounts.toml (\`web_root = "/srv/page"\`), then
\`sudo systemctl restart bornemisza-app\`, one node after the other. User bornemisza-app must
be able to read it.
`;

/** What `bornemisza web new` copies. What was in `out` goes. */
export async function writePageKit(out: string): Promise<void> {
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  for (const file of FILES) await cp(join(root, file), join(out, file), { recursive: true });
  const { devDependencies } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    devDependencies: Record<string, string>;
  };
  const own = {
    name: 'page',
    private: true,
    license: 'Apache-2.0',
    type: 'module',
    // Runs TypeScript as it is.
    engines: { node: '>=24' },
    scripts: { build: 'node scripts/web.ts', check: 'tsc -p src/web' },
    devDependencies: Object.fromEntries(PACKAGES.map((name) => [name, devDependencies[name]])),
  };
  await writeFile(join(out, 'package.json'), `${JSON.stringify(own, null, 2)}\n`);
  await writeFile(join(out, 'README.md'), README);
}
