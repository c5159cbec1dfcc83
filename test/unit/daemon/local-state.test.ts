import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { EMPTY_LOCAL_STATE, LocalStateFile } from '../../../src/daemon/local-state.ts';

t.test('the operator’s requests survive a restart, in one file with mode 0600', async (t) => {
  const directory = t.testdir();
  const path = join(directory, 'local.json');
  const first = new LocalStateFile(path);
  t.equal(await first.load(), undefined, 'a missing file is a first start');
  t.strictSame(first.state, EMPTY_LOCAL_STATE);
  const notification = { entries: [] };
  const writes = [
    first.update({ maintenance: true }),
    first.update({ guards: { held: ['x'] }, notification }),
  ];
  t.match(first.state, { maintenance: true, guards: { held: ['x'] } }, 'in memory at once');
  await Promise.all(writes);
  t.equal((await stat(path)).mode & 0o777, 0o600);
  t.strictSame(await readdir(directory), ['local.json'], 'nothing is left beside it');
  const second = new LocalStateFile(path);
  t.equal(await second.load(), undefined);
  t.strictSame(second.state, {
    maintenance: true,
    left: false,
    databaseFound: false,
    requestLogUntilMs: 0,
    guards: { held: ['x'] },
    rollout: undefined,
    notification,
  });
});

t.test('equal content is not written again', async (t) => {
  const path = join(t.testdir(), 'local.json');
  const file = new LocalStateFile(path);
  await file.update({ maintenance: true });
  const { ino } = await stat(path);
  await file.update({ maintenance: true });
  t.equal((await stat(path)).ino, ino);
  const again = new LocalStateFile(path);
  await again.load();
  await again.update({});
  t.equal((await stat(path)).ino, ino, 'not after a start either');
  await again.update({ maintenance: false });
  t.not((await stat(path)).ino, ino, 'a change replaces the file');
});

t.test('a damaged file is moved aside and reported, whatever the damage', async (t) => {
  const whole = '{"maintenance":true,"left":false,"guards":{"a":1}}\n';
  const damages = [
    '',
    whole.slice(0, whole.length / 2),
    'null',
    '[]',
    '{"maintenance":"yes"}',
    '\u0000\u0000',
  ];
  for (const damage of damages) {
    const path = join(t.testdir(), 'local.json');
    await writeFile(path, damage);
    const file = new LocalStateFile(path);
    const told = await file.load();
    t.match(
      told,
      /local\.json was damaged and is kept as .*\.damaged; maintenance and guards are reset$/,
      JSON.stringify(damage),
    );
    t.strictSame(file.state, EMPTY_LOCAL_STATE);
    t.equal(await readFile(`${path}.damaged`, 'utf8'), damage, 'kept to be looked at');
    await file.update({ maintenance: true });
    const again = new LocalStateFile(path);
    t.equal(await again.load(), undefined);
    t.equal(again.state.maintenance, true);
  }
});

t.test('half of a new file, left by a crash, is not read', async (t) => {
  const path = join(t.testdir(), 'local.json');
  await new LocalStateFile(path).update({ maintenance: true });
  await writeFile(`${path}.new`, '{"maint');
  const file = new LocalStateFile(path);
  t.equal(await file.load(), undefined);
  t.equal(file.state.maintenance, true);
});

t.test('a failed write is one sentence, leaves the old file, and is tried again', async (t) => {
  const directory = t.testdir();
  const path = join(directory, 'local.json');
  const file = new LocalStateFile(path);
  await file.update({ maintenance: false, guards: 1 });
  const before = await readFile(path, 'utf8');
  // A directory where the new file would be staged: the write fails as on a broken disk.
  await mkdir(`${path}.new`);
  await t.rejects(file.update({ maintenance: true }), {
    code: 'state-io',
    message: /local\.json could not be used/,
    next: /Check the disk/,
  });
  t.equal(await readFile(path, 'utf8'), before);
  t.equal(file.state.maintenance, true);
  const { rmdir } = await import('node:fs/promises');
  await rmdir(`${path}.new`);
  await file.update({});
  t.match(await readFile(path, 'utf8'), '"maintenance":true');
});

t.test('a file that cannot be read is named, not taken for damaged', async (t) => {
  const path = join(t.testdir({ 'local.json': {} }), 'local.json');
  await t.rejects(new LocalStateFile(path).load(), { code: 'state-io', message: /local\.json/, next: /\S/ });
});
