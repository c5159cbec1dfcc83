import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import t from 'tap';
import { run } from '../lab/process.ts';

/** `npm test` itself, on files that fail once, always and never. */
const here = process.cwd();
await mkdir(join(here, '.tap'), { recursive: true });
const directory = await mkdtemp(join(here, '.tap', 'second-try-'));
t.teardown(() => rm(directory, { recursive: true, force: true }));

async function file(name: string, body: string): Promise<string> {
  const path = join(directory, `${name}.test.ts`);
  await writeFile(
    path,
    `import { existsSync, writeFileSync } from 'node:fs';\nimport t from 'tap';\n${body}`,
  );
  return relative(here, path);
}

async function runTests(...files: readonly string[]) {
  const env = Object.entries(process.env).filter(([name]) => !name.startsWith('TAP'));
  return run([process.execPath, 'test/run.ts', '--tests-only', ...files], {
    env: Object.fromEntries(env) as Record<string, string>,
    timeoutMs: 60_000,
  });
}

t.test('a file that fails once is named, and one that fails twice fails the run', async (t) => {
  const mark = JSON.stringify(join(directory, 'mark'));
  const good = await file('good', 't.ok(true);\nt.ok(true);\n');
  const once = await file(
    'once',
    `const tried = existsSync(${mark});\nwriteFileSync(${mark}, '');\nt.ok(tried, 'tried before');\n`,
  );
  const always = await file('always', "t.ok(false, 'never good');\n");
  const { code, stdout } = await runTests(good, once, always);
  t.equal(code, 1);
  t.match(stdout, 'not ok 1 - tried before', 'what it failed with is shown');
  t.match(stdout, `# unsteady, good when alone: ${once}`);
  t.match(stdout, `# failed twice: ${always}`);
  t.equal(stdout.trimEnd().split('\n').at(-1), '2 passed, 1 failed');
});
