import { execFile } from 'node:child_process';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { build, type Metafile } from 'esbuild';
import t from 'tap';
import { bundleProduct } from '../../../scripts/bundle.ts';

/** What the daemon needs and a plain command must not wait for. */
const HEAVY =
  /node_modules\/(@?libp2p|@multiformats|zod|node-forge|hono|@hono|nano|pino|@bufbuild|smol-toml|sirv)\//;

const bundle = join(t.testdir(), 'bornemisza.mjs');
const { metafile } = await bundleProduct(bundle);

/** Every module that is loaded before the first line of a command runs: static imports only. */
function loadedAtStart(inputs: Metafile['inputs'], entry: string): Set<string> {
  const seen = new Set<string>();
  const waiting = [entry];
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    if (seen.has(at)) continue;
    seen.add(at);
    for (const each of inputs[at]?.imports ?? [])
      if (each.kind !== 'dynamic-import' && each.external !== true) waiting.push(each.path);
  }
  return seen;
}

t.test('a plain command loads neither libp2p nor the schema library', async (t) => {
  const root = resolve(import.meta.dirname, '../../..');
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['src/cli/main.ts', 'src/cli/process-io.ts'],
    bundle: true,
    write: false,
    outdir: 'unused',
    platform: 'node',
    format: 'esm',
    metafile: true,
    logLevel: 'silent',
  });
  const loaded = [
    ...loadedAtStart(metafile.inputs, 'src/cli/main.ts'),
    ...loadedAtStart(metafile.inputs, 'src/cli/process-io.ts'),
  ];
  t.ok(loaded.includes('src/cli/commands/status.ts'), 'the walk saw the commands');
  t.ok(
    loaded.some((each) => each.includes('node_modules/commander/')),
    'and packages',
  );
  t.same(
    loaded.filter((each) => HEAVY.test(each)),
    [],
  );
  t.ok(
    Object.keys(metafile.inputs).some((each) => HEAVY.test(each)),
    'though set-up does load them, when it runs',
  );
});

t.test('nor does it wait for the built-in modules that it does not use', async (t) => {
  const tell = 'process.on("exit", () => process.stderr.write(process.moduleLoadList.join("\\n")))';
  const { stderr } = await promisify(execFile)(process.execPath, [
    `--import=data:text/javascript,${tell}`,
    bundle,
    '--version',
  ]);
  t.match(stderr, 'NativeModule path', 'the list is there');
  t.notMatch(stderr, /undici/);
});

t.test('nor does it read a line of the daemon', async (t) => {
  const inside = (part: string): string[] =>
    Object.entries(metafile.outputs)
      .filter(([path]) => path.endsWith(`/${part}.mjs`))
      .flatMap(([, { inputs }]) => Object.keys(inputs));
  const serving = /src\/daemon\/(driver|main|node|transport)\b|node_modules\/(libp2p|hono|nano|pino)\//;
  t.match(inside('daemon').join('\n'), serving, 'the daemon’s own file has it');
  for (const part of ['bornemisza', 'command', 'state-task']) {
    t.ok(inside(part).length > 0, `${part} is a file`);
    t.strictSame(
      inside(part).filter((path) => serving.test(path)),
      [],
      part,
    );
  }
  const late = Object.entries(metafile.outputs).flatMap(([path, { imports }]) =>
    path.endsWith('/bornemisza.mjs') || path.endsWith('.map') ? [] : imports.map((each) => each.path),
  );
  t.strictSame(
    late.filter((path) => path.startsWith('.')),
    [],
    'a part looks for no other file: the package may have been replaced meanwhile',
  );
});

t.test('nor does it read the error texts of other languages', async (t) => {
  const kept = Object.values(metafile.outputs).flatMap(({ inputs }) =>
    Object.entries(inputs).filter(
      ([path, { bytesInOutput }]) => /zod\/.*\/locales\/(?!index)/.test(path) && bytesInOutput > 0,
    ),
  );
  // `import * as z`: a named import of `z` keeps all of them.
  t.strictSame(
    kept.map(([path]) => path.replace(/^.*\//, '')),
    [...kept.keys()].map(() => 'en.js'),
  );
  t.ok(kept.length > 0, 'the one language that is');
});
