import { constants } from 'node:fs';
import { mkdir, open, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { systemClock } from '../../../src/daemon/clock.ts';
import { Checks, type CheckVerdict } from '../../../src/daemon/health/health.ts';
import { UnitWatch } from '../../../src/daemon/health/unit-watch.ts';
import { Units } from '../../../src/daemon/health/units.ts';
import { findUnit } from '../../../src/host/unit-cgroup.ts';
import { until } from '../../support/until.ts';

/** A tree of files in the form of cgroup v2; test/integration/app-tier.test.ts has the kernel's own. */
class Tree {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  static of(t: Test): Tree {
    return new Tree(t.testdir({ 'cgroup.controllers': 'cpu memory\n' }));
  }

  async put(path: string, populated: 0 | 1, frozen: 0 | 1 = 0): Promise<void> {
    await mkdir(join(this.root, path), { recursive: true });
    // Never an empty file in between, as the kernel's is never empty.
    const file = await open(join(this.root, path, 'cgroup.events'), constants.O_WRONLY | constants.O_CREAT);
    await file.write(`populated ${populated}\nfrozen ${frozen}\n`, 0);
    await file.close();
  }
}

t.test('a unit is found in its slice, and no user can pretend to be one', async (t) => {
  const tree = Tree.of(t);
  await tree.put('system.slice/shop.service', 1);
  await tree.put('system.slice/system-web.slice/web@1.service', 1);
  await tree.put('system.slice/_cpu.service', 1);
  await tree.put('user.slice/user-1000.slice/user@1000.service/app.slice/evil.service', 1);
  for (const [unit, path] of [
    ['shop.service', 'system.slice/shop.service'],
    ['web@1.service', 'system.slice/system-web.slice/web@1.service'],
    ['cpu.service', 'system.slice/_cpu.service'],
    ['evil.service', undefined],
    ['other.service', undefined],
  ] as const)
    t.equal(await findUnit(unit, tree.root), path === undefined ? undefined : join(tree.root, path), unit);
  await t.rejects(
    findUnit('shop.service', join(tree.root, 'system.slice')),
    { code: 'ENOENT' },
    'no cgroup v2',
  );
});

t.test('a unit runs, is frozen, or has ended; what cannot be seen is unknown', async (t) => {
  const tree = Tree.of(t);
  const units = new Units(() => undefined, tree.root);
  t.teardown(() => units.keep(new Set()));
  const unit = 'shop.service';
  t.equal(await units.look(unit), 'ended');
  await tree.put('system.slice/shop.service', 1);
  t.equal(await units.look(unit), 'runs');
  await tree.put('system.slice/shop.service', 1, 1);
  t.equal(await units.look(unit), 'frozen');
  await tree.put('system.slice/shop.service', 0);
  t.equal(await units.look(unit), 'ended', 'without a process');
  await rm(join(tree.root, 'system.slice/shop.service'), { recursive: true });
  t.equal(await units.look(unit), 'ended', 'and without a cgroup');
  await tree.put('other.slice/shop.service', 1);
  t.equal(await units.look(unit), 'runs', 'it was moved');
  t.equal(await new Units(() => undefined, join(tree.root, 'none')).look(unit), 'unknown');
});

const HOUR_MS = 3_600_000;
const options = { rise: 1, fall: 3, returnDelayMs: 0, intervalMs: HOUR_MS, fastIntervalMs: 5, timeoutMs: 1 };
const target = { kind: 'tcp', address: '127.0.0.1', port: 1 } as const;
const check = { name: 'shop', required: true, unit: 'shop.service', target };

async function running(t: Test, of: { cgroups?: string } = {}) {
  const tree = Tree.of(t);
  await tree.put('system.slice/shop.service', 1);
  const told: CheckVerdict[] = [];
  const counted = { asked: 0 };
  const checks = new Checks(options, {
    clock: systemClock,
    cgroups: of.cgroups ?? tree.root,
    ask: async () => {
      counted.asked += 1;
      return { passed: true, detail: '200 in 2 ms' };
    },
    changed: (verdict) => told.push(verdict),
  });
  t.teardown(() => checks.close());
  checks.set([check]);
  await until(() => checks.node === 'up');
  return { tree, told, checks, counted };
}

t.test('a unit that ends is down at once: no check is waited for, and none is sent', async (t) => {
  for (const [state, detail] of [
    [[0, 0], 'shop.service has no process: systemctl status shop.service'],
    [[1, 1], 'shop.service is frozen: systemctl status shop.service'],
  ] as const) {
    const { tree, told, checks, counted } = await running(t);
    const { asked } = counted;
    await tree.put('system.slice/shop.service', state[0], state[1]);
    await until(() => checks.node === 'down', { what: 'an hour before its time' });
    t.match(told.at(-1), { health: 'down', streak: 1, detail, failure: 'ended' });
    t.equal(counted.asked, asked);
  }
});

t.test('a unit that cannot be seen leaves the question alone to decide', async (t) => {
  const { checks } = await running(t, { cgroups: '/nonexistent' });
  t.match(checks.verdicts, [{ health: 'up', detail: '200 in 2 ms; shop.service cannot be seen' }]);
});

t.test(
  'a unit that is named by a reload is watched from then on, and one that is left out is not',
  async (t) => {
    const { tree, checks } = await running(t);
    const without = { name: 'shop', required: true, target };
    checks.set([without]);
    await tree.put('system.slice/shop.service', 0);
    await until(() => checks.verdicts[0]?.lastPassed === true);
    t.equal(checks.node, 'up', 'the verdict of before counts');
    checks.set([check]);
    await until(() => checks.node === 'down', { what: 'an hour before its time' });
  },
);

t.test('a unit that is stopped while a question waits for its answer is down at once', async (t) => {
  const tree = Tree.of(t);
  const cgroup = 'system.slice/shop.service';
  await tree.put(cgroup, 1);
  const told: CheckVerdict[] = [];
  let asked = 0;
  const directory = tree.root;
  const stopped = join(directory, 'theirs/stopped');
  await mkdir(join(directory, 'theirs'));
  const checks = new Checks(options, {
    clock: systemClock,
    cgroups: tree.root,
    unitWatch: { watched: join(directory, 'ours/watched'), stopped },
    ask: async () => {
      asked += 1;
      return asked === 1 ? { passed: true, detail: '200 in 2 ms' } : new Promise<never>(() => undefined);
    },
    changed: (verdict) => told.push(verdict),
  });
  t.teardown(() => checks.close());
  checks.set([check]);
  await until(() => checks.node === 'up');
  await until(async () => (await readFile(join(directory, 'ours/watched'), 'utf8')) === `${cgroup}\n`);
  await until(() => {
    checks.failedElsewhere('shop', 'failed');
    return asked === 2;
  });
  await writeFile(stopped, `${cgroup}\n`);
  await until(() => checks.node === 'down', { what: 'long before the question ends' });
  const next = 'systemctl kill --signal=SIGCONT shop.service';
  t.match(told.at(-1), { detail: `shop.service is stopped by a signal: ${next}`, failure: 'ended' });
});

t.test('a report that is old, long, or about another unit stops nothing', async (t) => {
  const directory = t.testdir({ theirs: {} });
  const stopped = join(directory, 'theirs/stopped');
  const watch = new UnitWatch({ watched: join(directory, 'ours/watched'), stopped });
  t.teardown(() => watch.close());
  const cgroup = 'system.slice/shop.service';
  t.equal(await watch.isStopped(cgroup), false, 'without the program');
  await writeFile(stopped, `${cgroup}\n`);
  t.equal(await watch.isStopped(cgroup), true);
  t.equal(await watch.isStopped('system.slice/shop.servic'), false);
  for (const text of ['', `${cgroup}.x\n`, ` ${cgroup}\n`, `${cgroup}\n${'x'.repeat(64 * 1024)}`]) {
    await writeFile(stopped, text);
    t.equal(await watch.isStopped(cgroup), false, text.slice(0, 40));
  }
  await writeFile(stopped, `${cgroup}\n`);
  const old = Date.now() / 1000 - 6;
  await utimes(stopped, old, old);
  t.equal(await watch.isStopped(cgroup), false, 'it repeats itself each second');
  await rm(stopped);
  await mkdir(stopped);
  t.equal(await watch.isStopped(cgroup), false, 'no file');
});
