/**
 * Makes what the package brings: `dist/bornemisza.mjs` and its parts (daemon, command, set-up) and `dist/app.mjs`, the
 * app tier, each with its source map, the page in `dist/web`, and its sources for who changes it in `dist/page`.
 */
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { bundleAppTier, bundleProduct } from './bundle.ts';
import { writePageKit } from './page-kit.ts';
import { buildPage } from './page.ts';

const root = resolve(import.meta.dirname, '..');
const out = join(root, 'dist');

await mkdir(out, { recursive: true });
const page = await buildPage(join(root, 'src/web'), join(out, 'web'));
await writePageKit(join(out, 'page'));
const parts = {
  app: (await bundleAppTier(join(out, 'app.mjs'))).metafile,
  bornemisza: (await bundleProduct(join(out, 'bornemisza.mjs'))).metafile,
};
// What is inside: the package names the licence of each.
await writeFile(join(out, 'web.meta.json'), JSON.stringify(page.metafile));
for (const [name, metafile] of Object.entries(parts)) {
  await chmod(join(out, `${name}.mjs`), 0o755);
  await writeFile(join(out, `${name}.meta.json`), JSON.stringify(metafile));
  for (const [file, { bytes, inputs }] of Object.entries(metafile.outputs))
    if (file.endsWith('.mjs'))
      console.log(`${file}: ${Object.keys(inputs).length} modules, ${(bytes / 1e6).toFixed(1)} MB`);
}
console.log(`dist/web: ${page.bytes} bytes`);
