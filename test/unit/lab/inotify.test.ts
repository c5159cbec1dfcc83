import { watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { makeInotifyRoom } from '../../lab/inotify.ts';

const fileWith = (t: Test, limit: number): string => join(t.testdir({ limit: `${limit}\n` }), 'limit');
const limitIn = async (file: string): Promise<number> => Number(await readFile(file, 'utf8'));

t.test('a limit that is wide enough is left alone', async (t) => {
  const file = fileWith(t, 128);
  await makeInotifyRoom(6, { file, inUse: async () => 24 });
  t.equal(await limitIn(file), 128);
});

t.test('one that is not is raised to what is in use and the new hosts need', async (t) => {
  const file = fileWith(t, 128);
  await makeInotifyRoom(6, { file, inUse: async () => 25 });
  t.equal(await limitIn(file), 256);
  await makeInotifyRoom(16, { file, inUse: async () => 300 });
  t.equal(await limitIn(file), 1024);
});

t.test('what is in use is counted', async (t) => {
  const watcher = watch(t.testdir({}));
  t.teardown(() => watcher.close());
  const file = fileWith(t, 128);
  await makeInotifyRoom(8, { file });
  t.ok((await limitIn(file)) > 128, 'eight hosts and what is spare take all 128; one more is in use');
});

t.test('where it may not be raised the lab reports that, with the command', async (t) => {
  // A number that nobody may write.
  const file = '/proc/sys/kernel/cap_last_cap';
  await t.rejects(makeInotifyRoom(20, { file, inUse: async () => 1 }), {
    message: /for no 20 hosts more: 1 of \d+ are in use.*Next: sysctl fs\.inotify\.max_user_instances=512/,
  });
});
