import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { build, type Metafile } from 'esbuild';

export interface BuiltPage {
  readonly bytes: number;
  readonly brotliBytes: number;
  readonly metafile: Metafile;
}

/** The page of a folder of sources: each file beside its `.br` and `.gz`. What was in `out` goes. */
export async function buildPage(from: string, out: string): Promise<BuiltPage> {
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  const { metafile } = await build({
    entryPoints: { app: join(from, 'main.tsx'), sw: join(from, 'sw.ts'), style: join(from, 'app.css') },
    bundle: true,
    minify: true,
    format: 'esm',
    target: ['chrome110', 'firefox115', 'safari16.4'],
    jsx: 'automatic',
    jsxImportSource: 'preact',
    legalComments: 'none',
    outdir: out,
    metafile: true,
    logLevel: 'warning',
  });
  await copyFile(join(out, 'style.css'), join(out, 'app.css'));
  await rm(join(out, 'style.css'));
  for (const file of ['index.html', 'icon.svg']) {
    const text = await readFile(join(from, file), 'utf8');
    await writeFile(join(out, file), text.replaceAll(/>\s+</g, '><').replaceAll(/\s+/g, ' ').trim());
  }
  let bytes = 0;
  let brotliBytes = 0;
  for (const file of await readdir(out)) {
    const content = await readFile(join(out, file));
    const small = brotliCompressSync(content);
    bytes += content.length;
    brotliBytes += small.length;
    await writeFile(join(out, `${file}.br`), small);
    await writeFile(join(out, `${file}.gz`), gzipSync(content, { level: 9 }));
  }
  return { bytes, brotliBytes, metafile };
}
