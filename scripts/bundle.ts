import { join } from 'node:path';
import { build, type BuildOptions } from 'esbuild';

/** How every bundle is made: the product, and what benchmarks measure in its place. */
export const bundleOptions = {
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  sourcemap: true,
  sourcesContent: false,
  minifySyntax: true,
  legalComments: 'none',
  // Some dependencies are CommonJS and call require at run time.
  banner: {
    js: "#!/usr/bin/env node\nimport { createRequire as bornemiszaCreateRequire } from 'node:module';\nconst require = bornemiszaCreateRequire(import.meta.url);",
  },
  logLevel: 'warning',
} as const satisfies BuildOptions;

/** Daemon and command in one file, as the package brings it; what is inside stands in the result's `metafile`. */
export function bundleProduct(outfile: string) {
  return build({
    ...bundleOptions,
    entryPoints: [join(import.meta.dirname, '../src/bornemisza.ts')],
    outfile,
    metafile: true,
  });
}
