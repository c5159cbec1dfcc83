import { isBuiltin } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { build, type BuildOptions, type Plugin } from 'esbuild';
import { PROGRAM_PARTS } from './parts.ts';

const root = join(import.meta.dirname, '..');

/**
 * Built-in modules are required where they are used. An `import` reads each of a module's exports before the first line
 * runs, and one of node:http's is WebSocket, for which Node.js compiles all of undici: a quarter of what a plain
 * command takes.
 */
const requireBuiltins: Plugin = {
  name: 'require-builtins',
  setup: (bundle) => {
    bundle.onResolve({ filter: /^[a-z\d_/:]+$/ }, ({ path, kind }) =>
      kind === 'import-statement' && isBuiltin(path) ? { path, namespace: 'builtin' } : undefined,
    );
    bundle.onLoad({ filter: /./, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = require(${JSON.stringify(path)});`,
    }));
  },
};

/** Some dependencies are CommonJS and call require at run time. */
const REQUIRE =
  "import { createRequire as bornemiszaCreateRequire } from 'node:module';\nconst " +
  'require = bornemiszaCreateRequire(import.meta.url);';

/** How every bundle is made: the product, and what benchmarks measure in its place. */
export const bundleOptions = {
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  sourcemap: true,
  sourcesContent: false,
  minifySyntax: true,
  // Comments cost each command a tenth of its start, and one letter that is not ASCII doubles the text in memory.
  minifyWhitespace: true,
  legalComments: 'none',
  banner: { js: `#!/usr/bin/env node\n${REQUIRE}` },
  plugins: [requireBuiltins],
  logLevel: 'warning',
} as const satisfies BuildOptions;

/** The app tier in one file, with what is inside in `metafile`. */
export function bundleAppTier(outfile: string) {
  return build({
    ...bundleOptions,
    entryPoints: [join(root, 'src/app/main.ts')],
    outfile,
    metafile: true,
  });
}

/**
 * The program's entry imports its parts by name and at once: no file of a running daemon is looked for later, when the
 * package may have been replaced.
 */
const importParts: Plugin = {
  name: 'import-parts',
  setup: (bundle) => {
    const parts = new Map(Object.entries(PROGRAM_PARTS).map(([name, source]) => [join(root, source), name]));
    bundle.onResolve({ filter: /\.ts$/ }, ({ path, kind, importer, resolveDir }) => {
      const part = parts.get(join(resolveDir, path));
      const handsOver = kind === 'dynamic-import' && basename(importer) === 'bornemisza.ts';
      return handsOver && part !== undefined ? { path: `./${part}.mjs`, external: true } : undefined;
    });
  },
};

/**
 * The program as the package brings it: its entry in `outfile`, the parts beside it. What is inside stands in the
 * result's `metafile`.
 */
export function bundleProduct(outfile: string) {
  const entries = { [basename(outfile, '.mjs')]: 'src/bornemisza.ts', ...PROGRAM_PARTS };
  return build({
    ...bundleOptions,
    // The entry's source has the line that makes it a program; the parts are none.
    banner: { js: REQUIRE },
    plugins: [importParts, ...bundleOptions.plugins],
    entryPoints: Object.entries(entries).map(([out, source]) => ({ in: join(root, source), out })),
    outdir: dirname(outfile),
    outExtension: { '.js': '.mjs' },
    metafile: true,
  });
}
