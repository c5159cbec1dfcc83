import { chmod, link, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { PluginError } from '../../../src/plugins/contract.ts';
import { fileError, readIfPresent, replaceFile, stageFile } from '../../../src/host/files.ts';
import { replaceWhole, wholeFile } from '../../../src/host/whole-file.ts';

t.test('a new file is 0640 and whole, and nothing else is left behind', async (t) => {
  const directory = t.testdir();
  const path = join(directory, 'x.cfg');
  t.equal(await replaceFile(path, 'one'), 'written');
  t.equal(await readFile(path, 'utf8'), 'one');
  t.equal((await stat(path)).mode & 0o7777, 0o640);
  t.same(await readdir(directory), ['x.cfg']);
});

t.test('equal bytes are not written: the file stays the same file', async (t) => {
  const path = join(t.testdir({ 'x.cfg': 'one' }), 'x.cfg');
  const before = await stat(path);
  t.equal(await replaceFile(path, 'one'), 'unchanged');
  const after = await stat(path);
  t.equal(after.ino, before.ino);
  t.equal(after.mtimeMs, before.mtimeMs);
});

t.test('equal bytes with another mode than asked for are written', async (t) => {
  const path = join(t.testdir({ 'x.cfg': 'one' }), 'x.cfg');
  await chmod(path, 0o600);
  t.equal(await replaceFile(path, 'one', { mode: 0o640 }), 'written');
  t.equal((await stat(path)).mode & 0o7777, 0o640);
});

t.test('a replaced file keeps its mode and its group', async (t) => {
  const path = join(t.testdir({ 'x.cfg': 'one' }), 'x.cfg');
  await chmod(path, 0o604);
  const { gid } = await stat(path);
  await replaceFile(path, 'two');
  const after = await stat(path);
  t.equal(after.mode & 0o7777, 0o604);
  t.equal(after.gid, gid);
});

t.test('whoever has the former file open or linked keeps it whole', async (t) => {
  const directory = t.testdir({ 'x.cfg': 'one' });
  await link(join(directory, 'x.cfg'), join(directory, 'held'));
  await replaceFile(join(directory, 'x.cfg'), 'two');
  t.equal(await readFile(join(directory, 'held'), 'utf8'), 'one');
});

t.test('a link in the file’s place is replaced, and what it points to is not touched', async (t) => {
  const directory = t.testdir({ secret: 'mine' });
  await symlink(join(directory, 'secret'), join(directory, 'x.cfg'));
  await replaceFile(join(directory, 'x.cfg'), 'two');
  t.equal(await readFile(join(directory, 'secret'), 'utf8'), 'mine');
});

t.test('the newest backups stay, numbered by age', async (t) => {
  const directory = t.testdir();
  const path = join(directory, 'x.cfg');
  for (const text of ['1', '2', '3', '4', '5']) await replaceFile(path, text, { backups: 2 });
  t.same((await readdir(directory)).sort(), ['x.cfg', 'x.cfg.1', 'x.cfg.2']);
  const texts = await Promise.all(
    ['x.cfg', 'x.cfg.1', 'x.cfg.2'].map((name) => readFile(join(directory, name), 'utf8')),
  );
  t.same(texts, ['5', '4', '3']);
});

t.test('a staged file that is discarded leaves the former one and nothing else', async (t) => {
  const directory = t.testdir({ 'x.cfg': 'one' });
  const staged = await stageFile(join(directory, 'x.cfg'), 'two', { suffix: '.cfg' });
  t.equal(await readFile(staged.stagedPath, 'utf8'), 'two');
  t.match(staged.stagedPath, /\.cfg$/);
  await staged.discard();
  await staged.discard();
  t.same(await readdir(directory), ['x.cfg']);
  t.equal(await readFile(join(directory, 'x.cfg'), 'utf8'), 'one');
});

t.test('a missing directory is named, with what to do', async (t) => {
  const path = join(t.testdir(), 'none', 'x.cfg');
  const error = await replaceFile(path, 'one').then(
    () => undefined,
    (thrown: PluginError) => thrown,
  );
  t.match(error, {
    code: 'directory-missing',
    outcome: 'retry',
    message: /none does not exist/,
  });
});

t.test('a directory in the file’s place is an error, and nothing is left behind', async (t) => {
  const directory = t.testdir();
  await mkdir(join(directory, 'x.cfg'));
  await t.rejects(replaceFile(join(directory, 'x.cfg'), 'one'), { name: 'PluginError' });
  t.same(await readdir(directory), ['x.cfg']);
});

t.test('what the file system says becomes a sentence and a next step', (t) => {
  const cases: [string, string, RegExp][] = [
    ['ENOSPC', 'disk-full', /df -h \/var\/lib/],
    ['EDQUOT', 'disk-full', /df -h/],
    ['EACCES', 'file-not-permitted', /ls -ld/],
    ['EPERM', 'file-not-permitted', /ls -ld/],
    ['EROFS', 'file-system-read-only', /findmnt/],
    ['ENOENT', 'directory-missing', /systemd-tmpfiles/],
    ['EIO', 'file-write-failed', /journalctl -k/],
  ];
  for (const [errno, code, next] of cases) {
    const error = fileError(Object.assign(new Error(errno), { code: errno }), '/var/lib/x');
    t.match(error, { code, next, outcome: 'retry' }, errno);
  }
  t.end();
});

t.test('reading what is not there is no error; reading what is far too long is', async (t) => {
  const directory = t.testdir();
  t.equal(await readIfPresent(join(directory, 'none')), undefined);
  await writeFile(join(directory, 'long'), 'x'.repeat(100));
  t.equal((await readIfPresent(join(directory, 'long')))?.length, 100);
  await t.rejects(readIfPresent(join(directory, 'long'), 99), /more than the 99/);
});

t.test('whole files: modes, leftovers, planted links, and one winner of two', async (t) => {
  const directory = t.testdir({ other: 'precious', old: 'old' });
  const path = join(directory, 'x');
  const umask = process.umask(0o077);
  t.teardown(() => process.umask(umask));
  for (const oneWriter of [true, false]) {
    await replaceWhole(path, 'one', { mode: 0o644, oneWriter, durable: !oneWriter });
    t.equal((await stat(path)).mode & 0o7777, 0o644, 'the umask takes nothing off');
    t.equal(await readFile(path, 'utf8'), 'one');
  }
  await writeFile(`${path}.new`, 'ha');
  await replaceWhole(path, 'two', { mode: 0o600, oneWriter: true });
  await symlink(join(directory, 'other'), `${path}.new`);
  await replaceWhole(path, 'three', { mode: 0o600, oneWriter: true });
  t.equal(await readFile(path, 'utf8'), 'three');
  t.equal(await readFile(join(directory, 'other'), 'utf8'), 'precious', 'a link in the way is not followed');

  const two = await Promise.all(
    ['a', 'b'].map((each) => wholeFile(join(directory, 'y'), each, { mode: 0o600 })),
  );
  const won = await Promise.all(two.map((each) => each.create()));
  t.equal(won.filter(Boolean).length, 1, 'one of two creates it');
  t.equal(await readFile(join(directory, 'y'), 'utf8'), won[0] === true ? 'a' : 'b');
  const inTheWay = join(directory, 'z');
  await mkdir(inTheWay);
  await t.rejects(replaceWhole(inTheWay, 'z', { mode: 0o600 }), { code: 'EISDIR' });
  t.same((await readdir(directory)).sort(), ['old', 'other', 'x', 'y', 'z'], 'nothing is left beside them');
});
