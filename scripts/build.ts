/** Makes `dist/bornemisza.mjs`: daemon and command in one file of JavaScript, with its source map. */
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { bundleProduct } from './bundle.ts';

const root = resolve(import.meta.dirname, '..');
const out = join(root, 'dist');

await mkdir(out, { recursive: true });
const result = await bundleProduct(join(out, 'bornemisza.mjs'));
await chmod(join(out, 'bornemisza.mjs'), 0o755);
// What is inside: the package names the licence of each.
await writeFile(join(out, 'bornemisza.meta.json'), JSON.stringify(result.metafile));
const bytes = Object.values(result.metafile.outputs).reduce((most, each) => Math.max(most, each.bytes), 0);
console.log(
  `dist/bornemisza.mjs: ${Object.keys(result.metafile.inputs).length} modules, ${(bytes / 1e6).toFixed(1)} MB`,
);
