import { execFile } from 'node:child_process';
import { cp, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { writePageKit } from '../../../scripts/page-kit.ts';
import { buildPage } from '../../../scripts/page.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { place } from './place.ts';

const REPOSITORY = resolve(import.meta.dirname, '../../..');
const execute = promisify(execFile);

/** A machine where the package's part is installed. */
async function installed(t: Test): Promise<{ root: string; shared: string }> {
  const root = await place(t);
  const shared = join(root, 'usr/share/bornemisza');
  await mkdir(shared, { recursive: true });
  await writePageKit(join(shared, 'page'));
  await buildPage(join(REPOSITORY, 'src/web'), join(shared, 'web'));
  return { root, shared };
}

async function contents(directory: string): Promise<Record<string, string>> {
  const files = (await readdir(directory)).toSorted();
  const texts = files.map(async (file) => [file, await readFile(join(directory, file), 'base64')]);
  return Object.fromEntries(await Promise.all(texts)) as Record<string, string>;
}

t.test(
  'what web new copies builds to the page that is served, and a change of it is in the build',
  async (t) => {
    const { root, shared } = await installed(t);
    const directory = join(root, 'page');
    const made = await runCli(['web', 'new', directory, '--root', root]);
    t.match(made, { code: 0, err: '' });
    t.match(made.out, new RegExp(`next: cd ${directory} && npm install && npm run build`));
    t.same((await readdir(root)).toSorted(), ['page', 'usr'], 'nothing else is left');
    const served = await contents(join(shared, 'web'));
    t.same(await contents(join(directory, 'dist/web')), served, 'the build is there already');

    // npm install, without a registry: the same packages.
    await symlink(join(REPOSITORY, 'node_modules'), join(directory, 'node_modules'));
    const npm = JSON.parse(await readFile(join(directory, 'package.json'), 'utf8')) as {
      scripts: { build: string; check: string };
      devDependencies: Record<string, string>;
    };
    for (const [name, version] of Object.entries(npm.devDependencies)) {
      const own = JSON.parse(await readFile(join(REPOSITORY, 'node_modules', name, 'package.json'), 'utf8'));
      t.equal((own as { version: string }).version, version, name);
    }
    const run = (line: string) => {
      const [program = '', ...argv] = line.split(' ');
      const found = program === 'node' ? process.execPath : join(directory, 'node_modules/.bin', program);
      // As a founder's shell runs it: without what tap tells every Node.js that it sees starting.
      return execute('env', ['-u', 'NODE_OPTIONS', found, ...argv], { cwd: directory });
    };
    await rm(join(directory, 'dist'), { recursive: true });
    await run(npm.scripts.build);
    t.same(await contents(join(directory, 'dist/web')), served, 'its own build is the same, byte for byte');
    await run(npm.scripts.check);

    const words = join(directory, 'src/web/words-en.ts');
    await writeFile(words, (await readFile(words, 'utf8')).replaceAll('Sign in', 'Come in'));
    await run(npm.scripts.build);
    t.match(await readFile(join(directory, 'dist/web/app.js'), 'utf8'), /Come in/);
  },
);

t.test('an empty directory is taken, anything else is refused and stays as it is', async (t) => {
  const { root } = await installed(t);
  await mkdir(join(root, 'empty'));
  const taken = await runCli(['web', 'new', join(root, 'empty'), '--json', '--root', root]);
  t.same(JSON.parse(taken.out), { directory: join(root, 'empty') });
  await mkdir(join(root, 'full'));
  await writeFile(join(root, 'full/mine.txt'), 'mine');
  await writeFile(join(root, 'file'), 'mine');
  for (const name of ['full', 'file']) {
    const refused = await runCli(['web', 'new', join(root, name), '--json', '--root', root]);
    t.equal(refused.code, 2, name);
    t.match(JSON.parse(refused.err), { error: { code: 'web-new-not-empty', next: 'name a new directory' } });
  }
  t.same(await readdir(join(root, 'full')), ['mine.txt']);
  t.equal(await readFile(join(root, 'file'), 'utf8'), 'mine');
});

t.test('a copy that fails leaves nothing, and says what to do', async (t) => {
  const { root, shared } = await installed(t);
  await cp(join(shared, 'web'), join(root, 'kept'), { recursive: true });
  const asked = async (to: string) => {
    const { code, err } = await runCli(['web', 'new', join(root, to), '--json', '--root', root]);
    return { code, ...(JSON.parse(err) as object) };
  };
  t.match(await asked('none/page'), {
    code: 1,
    error: { code: 'web-new-failed', next: /a directory that you can create/ },
  });
  t.match(await asked('kept/app.js/page'), { code: 1, error: { code: 'web-new-failed' } });
  await rm(join(shared, 'web'), { recursive: true });
  t.match(await asked('page'), { code: 1, error: { code: 'web-new-missing', next: /dnf reinstall/ } });
  await rm(join(shared, 'page'), { recursive: true });
  t.match(await asked('page'), { code: 1, error: { code: 'web-new-missing' } });
  t.same((await readdir(root)).toSorted(), ['kept', 'usr']);
  const refused = await runCli(['web', 'new', join(root, 'page'), '--json'], { host: fakeHost({ uid: 0 }) });
  t.match(JSON.parse(refused.err), { error: { code: 'web-new-root', next: /without sudo/ } });
});
