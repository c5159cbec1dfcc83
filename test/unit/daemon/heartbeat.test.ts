import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { uptime } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Heartbeat } from '../../../src/daemon/process/heartbeat.ts';

const watched = { device: 'bm-float', port: 80, addresses: ['203.0.113.10', '203.0.113.11'] };

t.test(
  'a beat is one line that everybody may read: seconds since the boot, and what is watched',
  async (t) => {
    const path = join(t.testdir(), 'deadman/heartbeat');
    const before = process.umask(0o027);
    t.teardown(() => process.umask(before));
    const heartbeat = new Heartbeat(path, (error) => t.fail(error.message));
    await heartbeat.beat(watched);
    const [, seconds, rest] = /^(\d+) (.*)\n$/s.exec(await readFile(path, 'utf8')) ?? [];
    t.ok(Math.abs(Number(seconds) - uptime()) < 60, `${seconds} s`);
    t.equal(rest, 'bm-float 80 203.0.113.10 203.0.113.11');
    t.equal((await stat(path)).mode & 0o777, 0o644);
    await Promise.all([
      heartbeat.beat(watched),
      heartbeat.beat(watched),
      heartbeat.beat({ ...watched, addresses: [] }),
    ]);
    t.match(await readFile(path, 'utf8'), /^\d+ bm-float 80\n$/, 'the last one counts');
  },
);

t.test('without a watch there is no heartbeat; a former watch is withdrawn once', async (t) => {
  const path = join(t.testdir(), 'heartbeat');
  const nothing = { ...watched, addresses: [] };
  const beats = async (): Promise<Heartbeat> => {
    const heartbeat = new Heartbeat(path, (error) => t.fail(error.message));
    for (let each = 0; each < 3; each += 1) await heartbeat.beat(nothing);
    return heartbeat;
  };
  await beats();
  await t.rejects(stat(path), { code: 'ENOENT' });
  await writeFile(path, '17 bm-float 80 203.0.113.10\n');
  const heartbeat = await beats();
  t.match(await readFile(path, 'utf8'), /^\d+ bm-float 80\n$/);
  await rm(path);
  await heartbeat.beat(nothing);
  await t.rejects(stat(path), { code: 'ENOENT' });
  await heartbeat.beat(watched);
  t.match(await readFile(path, 'utf8'), '203.0.113.10');
});

t.test('a directory that cannot be written is reported once, and used again when it can', async (t) => {
  const place = t.testdir();
  const path = join(place, 'deadman/heartbeat');
  await writeFile(join(place, 'deadman'), 'in the way');
  const told: string[] = [];
  const heartbeat = new Heartbeat(path, (error) => told.push(error.message));
  for (let beats = 0; beats < 3; beats += 1) await heartbeat.beat(watched);
  t.equal(told.length, 1);
  t.match(told[0], 'ENOTDIR');
  await rm(join(place, 'deadman'));
  await mkdir(join(place, 'deadman'));
  await heartbeat.beat(watched);
  t.match(await readFile(path, 'utf8'), '203.0.113.10');
  t.equal(told.length, 1);
});
