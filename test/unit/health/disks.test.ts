import type { StatsFs } from 'node:fs';
import t from 'tap';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import { Disks, writtenTo } from '../../../src/daemon/health/disks.ts';
import type { HostFinding } from '../../../src/daemon/health/host-finding.ts';

const ROOMY = { bsize: 4096, blocks: 1_000_000, bavail: 500_000, files: 100_000, ffree: 50_000 } as StatsFs;
/** What statfs(2) says of each path, by its device. */
type Machine = Record<string, { device: number } & Partial<StatsFs>>;

function disks(machine: Machine, paths = Object.keys(machine)) {
  const told: { code: HostFinding['code']; full: boolean }[] = [];
  const clock = { ms: 0 };
  const asked: string[] = [];
  const watched = paths.map((path) => ({ path, kind: path.startsWith('/run') ? 'run' : 'disk' }) as const);
  const made = new Disks(watched, {
    nowMs: () => clock.ms,
    changed: ({ code }, full) => told.push({ code, full }),
    read: async (path) => {
      asked.push(path);
      const found = machine[path];
      if (found === undefined) throw new Error('ENOENT');
      const { device, ...facts } = found;
      return { device, facts: { ...ROOMY, ...facts } };
    },
  });
  const later = async (): Promise<void> => {
    clock.ms += 60_000;
    await made.look();
  };
  return { made, told, later, clock, asked };
}

t.test('each file system that is full in bytes or in files is found, once, wherever it is', async (t) => {
  const full = { bavail: 20_000 };
  for (const [machine, codes] of [
    [{ '/var/lib': { device: 1 }, '/data': { device: 2 } }, []],
    [{ '/var/lib': { device: 1, ...full }, '/data': { device: 2 } }, ['disk-full']],
    [{ '/var/lib': { device: 1 }, '/data': { device: 2, ffree: 999 } }, ['disk-full']],
    [{ '/var/lib': { device: 1, ...full }, '/data': { device: 1, ...full } }, ['disk-full']],
    [
      { '/var/lib': { device: 1, bavail: 90_000 }, '/data': { device: 2, ffree: 3 } },
      ['disk-full', 'disk-filling'],
    ],
    // In memory, where some bytes are enough.
    [{ '/run/b': { device: 3, blocks: 500, bavail: 300, ffree: 150 } }, []],
    [{ '/run/b': { device: 3, blocks: 500, bavail: 200 } }, ['disk-full']],
    [{ '/run/b': { device: 3, ffree: 99 } }, ['disk-full']],
    // Some file systems count no files.
    [{ '/var/lib': { device: 1, files: 0, ffree: 0 } }, []],
  ] as readonly (readonly [Machine, readonly string[]])[]) {
    const { made, later } = disks(machine);
    await later();
    t.same(
      made.findings.map(({ code }) => code),
      codes,
      JSON.stringify(machine),
    );
    t.equal(made.tag, codes.includes('disk-full') ? 'full' : undefined);
  }
});

t.test(
  'a disk is reported when it becomes full and when it has room again, and not at each check',
  async (t) => {
    const machine: Machine = { '/var/lib': { device: 1 }, '/data': { device: 2 } };
    const { told, later, made } = disks(machine);
    await later();
    t.same(told, []);
    machine['/data'] = { device: 2, bavail: 0 };
    await later();
    await later();
    t.same(told, [{ code: 'disk-full', full: true }]);
    t.match(made.findings, [{ message: /^a disk is full: 0 MiB free under \/data/, next: /du -xh \/data/ }]);
    machine['/data'] = { device: 2 };
    await later();
    t.same(told.at(-1), { code: 'disk-full', full: false });
  },
);

t.test('a missing directory ends nothing, and one that never answers is asked once', async (t) => {
  const { made, later, asked } = disks({ '/data': { device: 2, ffree: 1 } }, ['/gone', '/data']);
  await later();
  t.match(made.findings, [{ code: 'disk-full' }]);
  await made.look();
  t.equal(asked.length, 2, 'within ten seconds it is not looked at again');
  let asks = 0;
  const clock = { ms: 0 };
  const hanging = new Disks([{ path: '/nfs', kind: 'disk' }], {
    nowMs: () => clock.ms,
    changed: () => t.fail('nothing is known'),
    read: () => {
      asks += 1;
      return new Promise(() => undefined);
    },
  });
  void hanging.look();
  clock.ms += 60_000;
  void hanging.look();
  t.equal(asks, 1);
});

t.test('the real file system is read, and all directories that are written to are watched', async (t) => {
  const real = new Disks([{ path: t.testdir(), kind: 'disk' }], { nowMs: () => 0, changed: () => undefined });
  await real.look();
  for (const { code } of real.findings) t.match(code, /^disk-/);
  const watched = (role: 'app' | 'db') => writtenTo(pathsFor(role), role).map(({ path }) => path);
  for (const path of [
    '/var/lib/bornemisza/db',
    '/var/lib/couchdb/data',
    '/etc/bornemisza',
    '/run/bornemisza/db',
  ])
    t.ok(watched('db').includes(path), path);
  t.notOk(watched('app').some((path) => path.includes('couchdb')));
});
