import { execFile } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import t from 'tap';
import { bundleOptions } from '../../../scripts/bundle.ts';
import { framesOf } from '../../../src/daemon/process/stack.ts';

const SOURCE = [
  '/** A bug. */',
  'interface Row { readonly name: string }',
  '',
  'export function nameOf(row: Row | undefined): string {',
  '  return row!.name;',
  '}',
];
const stack = pathToFileURL(join(import.meta.dirname, '../../../src/daemon/process/stack.ts')).href;

t.test(
  'a bug is reported with the lines of the source, or without a map with those of the bundle',
  async (t) => {
    const directory = t.testdir();
    await mkdir(join(directory, 'src'));
    await writeFile(join(directory, 'src/rows.ts'), SOURCE.join('\n'));
    const outfile = join(directory, 'bundle.mjs');
    await build({ ...bundleOptions, entryPoints: [join(directory, 'src/rows.ts')], outfile });
    const script = `
    import { framesOf } from ${JSON.stringify(stack)};
    import { nameOf } from ${JSON.stringify(pathToFileURL(outfile).href)};
    try { nameOf(undefined); } catch (error) { console.log(framesOf(error)[0]); }`;
    /** Without the environment, by which tap gives --enable-source-maps to all that a test starts. */
    const firstFrame = async (): Promise<string> => {
      const argv = ['-i', process.execPath, '--input-type=module', '-e', script];
      const { stdout } = await promisify(execFile)('env', argv);
      return stdout.trim();
    };
    t.match(await firstFrame(), /^at nameOf \(src\/rows\.ts:5:\d+\)$/);
    await rm(`${outfile}.map`);
    t.match(await firstFrame(), /^at nameOf \(file:\/\/\S+\/bundle\.mjs:\d+:\d+\)$/);
  },
);

t.test('what is no error has no frames', async (t) => {
  t.same(framesOf('a word'), []);
  t.same(framesOf(Object.assign(new Error('bare'), { stack: undefined })), []);
});
