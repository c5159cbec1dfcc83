import { access, mkdir, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { DROP_IN } from '../../../src/cli/setup/layer2.ts';
import { wipe } from '../../../src/cli/setup/wipe.ts';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import type { Role } from '../../../src/daemon/membership/types.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { DONE_LEAVING, FakeDaemon } from './fake-daemon.ts';
import { place } from './place.ts';

/** What a machine with both roles has on its disk. */
async function machine(t: Test): Promise<string> {
  const root = await place(t);
  for (const role of ['app', 'db'] as const) {
    const paths = pathsFor(role, root);
    for (const file of [
      join(paths.state, 'node.key'),
      join(paths.state, 'authority/key.pem'),
      paths.config,
      `${paths.config}.format-0`,
      join(paths.haproxyFiles, 'haproxy.cfg'),
    ])
      await put(file);
  }
  const { couchdbFiles, couchdbData, birdFragments, services } = pathsFor('db', root);
  for (const file of [
    join(couchdbFiles, 'cookie'),
    join(couchdbData, 'data/shards/00/x.couch'),
    join(couchdbData, '.erlang.cookie'),
    join(birdFragments, 'floating.conf'),
    join(services, 'shop.toml'),
  ])
    await put(file);
  return root;
}

async function put(file: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, '{}');
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function leaving(t: Test, role: Role, root: string, lines: readonly unknown[] = DONE_LEAVING) {
  const daemon = await new FakeDaemon(root, role, { 'POST /v1/leave': { lines } }).start();
  t.teardown(() => daemon.stop());
  return daemon;
}

t.test(
  'a db node that left leaves no key, no configuration and no data, and the app node beside it all of its own',
  async (t) => {
    const root = await machine(t);
    await leaving(t, 'db', root);
    const { code, out } = await runCli(['leave', '--wipe', '--root', root]);
    t.equal(code, 0);
    t.match(out, /removed all of the db node from this machine\n$/);
    const db = pathsFor('db', root);
    for (const gone of [db.state, db.config, `${db.config}.format-0`]) t.notOk(await isThere(gone), gone);
    for (const empty of [db.haproxyFiles, db.couchdbFiles, db.couchdbData])
      t.same(await readdir(empty), [], empty);
    const app = pathsFor('app', root);
    for (const kept of [
      join(app.state, 'node.key'),
      app.config,
      join(app.haproxyFiles, 'haproxy.cfg'),
      join(app.birdFragments, 'floating.conf'),
      join(app.services, 'shop.toml'),
    ])
      t.ok(await isThere(kept), kept);
  },
);

t.test('an app node takes what BIRD announces and its right to ARP with it, and no data', async (t) => {
  const root = await machine(t);
  await put(`${root}${DROP_IN}`);
  await leaving(t, 'app', root);
  t.equal((await runCli(['leave', '--wipe', '--root', root])).code, 0);
  const app = pathsFor('app', root);
  t.notOk(await isThere(app.state));
  t.same(await readdir(app.birdFragments), []);
  t.notOk(await isThere(`${root}${DROP_IN}`));
  t.ok(await isThere(join(app.couchdbData, 'data/shards/00/x.couch')));
});

t.test('a leave that is refused wipes nothing', async (t) => {
  const root = await machine(t);
  const error = { code: 'guard-last-of-role', message: 'db1/db is the last', next: 'add another' };
  await leaving(t, 'db', root, [{ message: 'refused', error }]);
  t.equal((await runCli(['leave', '--wipe', '--root', root])).code, 5);
  const { state, config, couchdbData } = pathsFor('db', root);
  for (const kept of [join(state, 'node.key'), config, join(couchdbData, 'data/shards/00/x.couch')])
    t.ok(await isThere(kept), kept);
});

t.test('after an earlier leave it only wipes; without one it reports that no daemon runs', async (t) => {
  const root = await machine(t);
  const { state } = pathsFor('db', root);
  t.equal((await runCli(['leave', '--wipe', '--role', 'db', '--root', root])).code, 3);
  t.ok(await isThere(state));
  await writeFile(join(state, 'local.json'), '{"maintenance":false,"left":true}\n');
  t.equal((await runCli(['leave', '--wipe', '--role', 'db', '--root', root])).code, 0);
  t.notOk(await isThere(state));
});

t.test('units are stopped first, and what does not stop is not wiped', async (t) => {
  const root = await machine(t);
  const paths = pathsFor('db', root);
  const asked: (readonly string[])[] = [];
  const io = (code: number) => ({
    // Not root, so that the directories are emptied here, and not as the user of an installed package.
    host: fakeHost({
      uid: 1000,
      programs: {
        systemctl: (args) => {
          asked.push(args);
          return { code, stderr: 'Job for couchdb.service failed' };
        },
      },
    }),
  });
  const say = (): void => {};
  await t.rejects(wipe(io(1) as never, 'db', paths, '', say), { code: 'wipe-failed' });
  t.ok(await isThere(paths.state));
  await wipe(io(0) as never, 'db', paths, '', say);
  t.same(asked[1], [
    'disable',
    '--now',
    'bornemisza@db.service',
    'bornemisza-haproxy@db.service',
    'couchdb.service',
  ]);
  t.notOk(await isThere(paths.state));
});

t.test('a user who is not root gets the refusal before the leave', async (t) => {
  const { code, err } = await runCli(['leave', '--wipe', '--role', 'app'], { host: fakeHost({ uid: 1000 }) });
  t.equal(code, 4);
  t.match(err, /root/);
});
