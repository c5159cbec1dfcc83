import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import t from 'tap';
import { Lab, poll, type Host } from '../lab/index.ts';
import { spawnInside } from '../lab/namespace.ts';
import { claimPlace } from '../lab/place.ts';
import { run } from '../lab/process.ts';
import { spawnWithUs } from '../support/with-us.ts';
import { floating, ping, placeholderLab } from '../integration/lab-bed.ts';

const library = new URL('../lab/index.ts', import.meta.url).href;
const command = fileURLToPath(new URL('../lab/main.ts', import.meta.url));

/** How many of each thing of a lab this machine still has. */
async function left(id: string): Promise<Record<string, number>> {
  const count = (names: readonly string[], part: string): number =>
    names.filter((name) => name.includes(part)).length;
  const list = (directory: string): Promise<string[]> => readdir(directory).catch(() => []);
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  const cgroups = mounts.find((line) => line.includes(' - cgroup2 '))?.split(' ')[4] ?? '';
  const read = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
  const memberships = (await list('/proc'))
    .filter((name) => /^\d+$/.test(name))
    // A process that has ended and waits to be noticed by its parent has no command line any more.
    .map(async (pid) => ((await read(`/proc/${pid}/cmdline`)) === '' ? '' : read(`/proc/${pid}/cgroup`)));
  return {
    processes: count(await Promise.all(memberships), `/lab-${id}`),
    namespaces: count(await list('/run/netns'), `lab-${id}-`),
    mounts: count(mounts, `/${id}/`),
    cgroups: count(await list(cgroups), `lab-${id}`),
    files: count(await list('/run/bornemisza-lab'), id),
  };
}
const nothing = { processes: 0, namespaces: 0, mounts: 0, cgroups: 0, files: 0 };

/**
 * What is still there of a lab that has ended. Two may take it away at once, its reaper and a sweep: the later one
 * holds a lock for some milliseconds more.
 */
async function remains(id: string): Promise<Record<string, number>> {
  let found = await left(id);
  for (const startMs = performance.now(); performance.now() - startMs < 5000; found = await left(id))
    if (isDeepStrictEqual(found, nothing)) break;
  return found;
}

/** A process that owns a lab of two hosts and does nothing more. */
async function startOwner(bundle: string): Promise<{ readonly owner: ChildProcess; readonly id: string }> {
  const hosts = `[{ name: 'app1', roles: ['app'] }, { name: 'db1', roles: ['db'] }]`;
  const code = `import { Lab } from '${library}';
    const lab = await Lab.create({ bundle: '${bundle}', hosts: ${hosts} });
    console.log(lab.id);
    setInterval(() => {}, 2 ** 30);`;
  const owner = spawnWithUs(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [id] = (await once(createInterface(owner.stdout), 'line')) as [string];
  return { owner, id };
}

async function bundleIn(directory: string): Promise<string> {
  await writeFile(`${directory}/bundle.mjs`, '');
  return `${directory}/bundle.mjs`;
}

t.test('two labs run at once with the same addresses, and closing one leaves the other alone', async (t) => {
  const hosts = [{ name: 'app1', roles: ['app'] as const }];
  const directory = t.testdir({ one: {}, other: {} });
  const [one, other] = await Promise.all([
    placeholderLab(`${directory}/one`, hosts, { bfd: true }),
    placeholderLab(`${directory}/other`, hosts),
  ]);
  t.teardown(() => Promise.all([one.close(), other.close()]));
  t.equal(one.host('app1').privateAddress, other.host('app1').privateAddress);
  await one.host('app1').writeFile('/var/lib/which', 'one');
  t.not((await other.host('app1').exec(['cat', '/var/lib/which'])).code, 0);
  await other.close();
  t.strictSame(await remains(other.id), nothing);
  t.equal(await one.host('app1').readFile('/var/lib/which'), 'one');

  // With BFD, the silent death of a host is seen in its 300 ms; the hold time of 9 s, begun at most 3 s ago, ends 6 s
  // from here.
  const [app1] = one.hosts as [Host];
  await app1.start('bornemisza@app.service');
  await one.router.waitForAnnouncers(floating, ['app1']);
  await poll('BFD to be up', async () =>
    (await one.router.birdc('show bfd sessions')).stdout.includes(' Up ') ? true : undefined,
  );
  const atMs = Date.now();
  await app1.cut();
  await one.router.waitForAnnouncers(floating, []);
  const tookMs = (one.router.history(floating).at(-1)?.atMs ?? 0) - atMs;
  t.ok(tookMs > 0 && tookMs < 6_000, `${tookMs} ms`);
});

t.test('a lab ends with its owner, even a killed one', async (t) => {
  const { owner, id } = await startOwner(await bundleIn(t.testdir()));
  const before = await left(id);
  for (const [kind, number] of Object.entries(before)) t.ok(number > 0, `${kind}: ${number}`);
  owner.kill('SIGKILL');
  await poll('the lab to be gone', async () => ((await left(id))['files'] === 0 ? true : undefined));
  t.strictSame(await remains(id), nothing);
});

t.test('what a test starts outside of a lab ends with it, even with a killed one', async (t) => {
  const place = await claimPlace();
  t.teardown(() => place.close());
  const program = fileURLToPath(new URL('programs-outside.ts', import.meta.url));
  // What is in the cgroup came of it, whoever its parent is by now.
  const owner = spawnInside(place.cgroup, [process.execPath, program], ['ignore', 'pipe', 'inherit']);
  const [line] = (await Promise.race([
    once(createInterface(owner.stdout as Readable), 'line'),
    once(owner, 'exit'),
  ])) as [unknown];
  t.equal(line, 'all run');
  const running = async (): Promise<string[]> => {
    const pids = (await readFile(`${place.cgroup}/cgroup.procs`, 'utf8')).trim().split('\n');
    const names = pids.filter(Boolean).map((pid) => readFile(`/proc/${pid}/comm`, 'utf8').catch(() => ''));
    return (await Promise.all(names)).map((name) => name.trim()).filter(Boolean);
  };
  const before = await running();
  for (const name of ['haproxy', 'pebble', 'pebble-challtes', 'chromium'])
    t.ok(before.includes(name), `${name} is one of ${before.join(' ')}`);
  t.ok(
    before.filter((name) => !/haproxy|pebble|chrom/.test(name)).length >= 4,
    'and two CouchDBs, an app tier',
  );
  owner.kill('SIGKILL');
  let left = before;
  await poll(
    () => `the end of ${left.join(' ')}`,
    async () => ((left = await running()).length === 0 ? true : undefined),
  );
});

t.test(
  'a benchmark ends with its process: nothing of it stays, and the machine is set as before',
  async (t) => {
    const limit = '/proc/sys/net/ipv4/neigh/default/gc_thresh3';
    const before = await readFile(limit, 'utf8');
    // With so many hosts the table of neighbours is made larger, by default.
    const code = `import { withSegment } from '${new URL('../bench/segment.ts', import.meta.url).href}';
    await withSegment(17, async ({ directory }) => {
      console.log(directory);
      setTimeout(() => { throw new Error('nobody catches this') }, 10);
      await new Promise((resolve) => setTimeout(resolve, 2 ** 30));
    });`;
    const owner = spawnWithUs(process.execPath, ['--input-type=module', '-e', code], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [[directory], [status]] = (await Promise.all([
      once(createInterface(owner.stdout), 'line'),
      once(owner, 'exit'),
    ])) as [[string], [number | null]];
    t.equal(status, 1);
    const id = basename(directory);
    await poll('it to be gone', async () => ((await left(id))['files'] === 0 ? true : undefined));
    t.strictSame(await remains(id), nothing);
    t.equal(await readFile(limit, 'utf8'), before);
  },
);

t.test('what even its reaper could not clear is swept, and a living lab is not', async (t) => {
  const bundle = await bundleIn(t.testdir());
  const [dead, living] = [await startOwner(bundle), await startOwner(bundle)];
  t.teardown(() => living.owner.kill('SIGKILL'));
  const reaper = Number(await readFile(`/run/bornemisza-lab/${dead.id}/reaper`, 'utf8'));
  process.kill(reaper, 'SIGKILL');
  dead.owner.kill('SIGKILL');
  await once(dead.owner, 'exit');
  const before = await left(dead.id);
  for (const [kind, number] of Object.entries(before)) t.ok(number > 0, `${kind}: ${number}`);
  // Another test's lab may sweep first: what counts is that it is gone, not who did it.
  await Lab.sweep();
  t.strictSame(await remains(dead.id), nothing);
  t.ok(((await left(living.id))['processes'] ?? 0) > 0);
  living.owner.kill('SIGKILL');
  await poll('the living lab to be gone', async () =>
    (await left(living.id))['files'] === 0 ? true : undefined,
  );
});

t.test('a lab that cannot be built leaves nothing and says why', async (t) => {
  const bundle = await bundleIn(t.testdir());
  const boot = {
    bundle,
    hosts: [
      { name: 'app1', roles: ['app'] as const, files: { '/etc/x': { content: '', owner: 'nobody-here' } } },
    ],
  };
  const before = new Set((await Lab.list()).map(({ id }) => id));
  await t.rejects(Lab.create(boot), /no user nobody-here/);
  await t.rejects(Lab.create({ bundle: '/nowhere.mjs', hosts: [] }), /nowhere\.mjs/);
  await t.rejects(Lab.create({ bundle, hosts: [{ name: 'router', roles: [] }] }), /taken/);
  const after = (await Lab.list()).filter(({ id, owner }) => owner === process.pid && !before.has(id));
  t.strictSame(after, []);
});

t.test('with a package, hosts come up without any file of the project', async (t) => {
  const directory = t.testdir({ 'some.rpm': 'not looked into' });
  const lab = await Lab.create({
    package: `${directory}/some.rpm`,
    hosts: [{ name: 'app1', roles: ['app'] }],
  });
  t.teardown(() => lab.close());
  const [app1] = lab.hosts as [Host];
  const script =
    'ls -d /usr/libexec/bornemisza /usr/bin/bornemisza /usr/lib/systemd/system/bornemisza* /usr/lib/*/bornemisza*';
  t.equal((await app1.exec(['sh', '-c', script])).stdout, '');
  t.equal(await app1.readFile('/root/bornemisza-node.rpm'), 'not looked into');
});

t.test('the command brings a lab up, runs programs in it and takes it away', async (t) => {
  const bundle = await bundleIn(t.testdir());
  const lab = (...argv: readonly string[]) => run([process.execPath, command, ...argv]);
  const up = await lab('up', '--app', '1', '--both', '1', '--bundle', bundle);
  const id = up.stdout.trim();
  t.match(id, /^[0-9a-f]{6}$/, up.stderr);
  t.match((await lab('list')).stdout, new RegExp(`${id}  owner \\d+  app1 both1`));
  t.equal((await lab('exec', '--lab', id, 'both1', 'hostname')).stdout, 'both1\n');
  t.equal((await lab('exec', '--lab', id, 'app1', 'sh', '-c', 'exit 7')).code, 7);
  t.match((await lab('exec', '--lab', id, 'router', 'ip', '-br', 'addr')).stdout, '169.254.169.254');
  const down = await lab('down', '--lab', id);
  t.equal(down.stdout, `${id}\n`, down.stderr);
  t.strictSame(await remains(id), nothing);
  t.match(await lab('frobnicate'), { code: 2, stderr: /usage/ });
});

t.test('six hosts come up together, and go together', async (t) => {
  const hosts = Array.from({ length: 6 }, (_, index) => ({ name: `h${index}`, roles: [] }));
  const startMs = performance.now();
  const lab = await Lab.create({ bundle: await bundleIn(t.testdir()), hosts });
  const bootedMs = performance.now() - startMs;
  t.teardown(() => lab.close());
  t.ok(await ping(lab.host('h0'), lab.host('h5').privateAddress));
  const closeMs = performance.now();
  await lab.close();
  const closedMs = performance.now() - closeMs;
  t.comment(`booted in ${bootedMs.toFixed(0)} ms, closed in ${closedMs.toFixed(0)} ms`);
  t.strictSame(await remains(lab.id), nothing);
});
