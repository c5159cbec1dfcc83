/**
 * Makes `dist/standin.mjs` of the stand-in for CouchDB. bin/couchdb runs it while no source is newer: it starts in a
 * fifth of the processor's time, and a lab starts it at each boot and restart of a db node.
 */
import { join } from 'node:path';
import { build } from 'esbuild';
import { bundleOptions } from '../../scripts/bundle.ts';

await build({
  ...bundleOptions,
  entryPoints: [join(import.meta.dirname, 'couchdb/main.ts')],
  outfile: join(import.meta.dirname, '../../dist/standin.mjs'),
});
