/** Makes the page: `dist/web`. Arguments name another folder of sources, and where the page goes. */
import { join, resolve } from 'node:path';
import { buildPage } from './page.ts';

const root = resolve(import.meta.dirname, '..');
const [from = join(root, 'src/web'), out = join(root, 'dist/web')] = process.argv.slice(2);
const { bytes, brotliBytes } = await buildPage(from, out);
console.log(`${out}: ${bytes} bytes, ${brotliBytes} with brotli`);
