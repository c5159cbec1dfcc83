import { execFile } from 'node:child_process';
import { cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { DROP_IN_TEXT } from '../../src/cli/setup/layer2.ts';

const run = promisify(execFile);
const source = new URL('../../systemd/', import.meta.url).pathname;

/** Unit, and the highest exposure (0 to 10) that systemd-analyze may find. */
const exposures = [
  ['bornemisza@app.service', 1.8],
  ['bornemisza@db.service', 1.5],
  ['bornemisza-haproxy@app.service', 1.7],
  ['bornemisza-haproxy@db.service', 1.7],
  ['bornemisza-haproxy-first@app.service', 1.2],
  ['bornemisza-site.service', 1.2],
  ['bornemisza-app.service', 1.5],
  ['bornemisza-deadman.service', 1.5],
  ['bornemisza-unit-watch.service', 1.2],
  ['bornemisza-firewall.service', 1.6],
  ['bornemisza-couchdb-restart.service', 1.5],
  ['bornemisza-path-retry@bornemisza-upgrade.service', 1.5],
  ['bornemisza-rollout.service', 2.0],
  // It runs dnf, which changes any file of the system: nothing is left to take away.
  ['bornemisza-upgrade.service', 9.6],
] as const;

/**
 * The tree's units, with stand-ins for what other packages bring, in a directory that systemd-analyze takes for the
 * only one.
 */
async function stage(t: Test): Promise<{ readonly env: NodeJS.ProcessEnv; readonly directory: string }> {
  const directory = t.testdir();
  await cp(join(source, 'system'), directory, { recursive: true });
  // The programs are there once the package is installed; here any program serves.
  for (const name of await readdir(directory, { recursive: true })) {
    if (!/\.(service|conf)$/.test(name)) continue;
    const text = await readFile(join(directory, name), 'utf8');
    await writeFile(
      join(directory, name),
      text.replaceAll(/\/usr\/(libexec\/bornemisza\/[a-z-]+|bin\/bornemisza)/g, '/bin/true'),
    );
  }
  await writeFile(join(directory, 'couchdb.service'), '[Service]\nUser=couchdb\nExecStart=/bin/true\n');
  await writeFile(join(directory, 'man'), '#!/bin/sh\nexit 0\n', { mode: 0o755 });
  // The colon keeps the distribution's units reachable. `man` is asked for every Documentation= and may not be
  // installed.
  return {
    directory,
    env: {
      PATH: `${directory}:${process.env['PATH']}`,
      SYSTEMD_UNIT_PATH: `${directory}:`,
      SYSTEMD_COLORS: '0',
    },
  };
}

t.test('systemd reports nothing about any unit or drop-in', async (t) => {
  const { env, directory } = await stage(t);
  const units = (await readdir(directory))
    .filter((name) => /\.(service|target|path|timer)$/.test(name))
    .flatMap((name) =>
      name.includes('@.') ? ['app', 'db'].map((role) => name.replace('@.', `@${role}.`)) : [name],
    );
  t.ok(units.includes('bornemisza@db.service'), 'instances are looked at with their drop-ins');
  const { stdout, stderr } = await run('systemd-analyze', ['verify', ...units, 'bird.service'], { env });
  t.equal(stdout + stderr, '');
});

t.test('a unit with a mistake is found', async (t) => {
  const { env, directory } = await stage(t);
  const path = join(directory, 'bornemisza@db.service.d/role.conf');
  await writeFile(path, `${await readFile(path, 'utf8')}ReadWritePath=/nowhere\n`);
  const { stderr } = await run('systemd-analyze', ['verify', 'bornemisza@db.service'], { env });
  t.match(stderr, /Unknown key.* 'ReadWritePath' in section/);
});

t.test('no unit is more exposed than it was', async (t) => {
  const { env, directory } = await stage(t);
  const services = (await readdir(join(source, 'system'))).filter((name) => name.endsWith('.service'));
  const named = exposures.map(([unit]) => unit.replace(/@[a-z-]+\./, '@.'));
  t.strictSame([...new Set(named)].sort(), services.sort(), 'each service has its number');
  // Of other packages, with a drop-in of ours: it may take nothing away from how they are confined.
  for (const unit of ['couchdb.service', 'bird.service']) {
    const bare = join(directory, `bare-${unit}`);
    const plain = '[Service]\nUser=nobody\nExecStart=/bin/true\n';
    await writeFile(bare, plain);
    await writeFile(join(directory, unit), plain);
    const exposureOf = async (name: string): Promise<number> => {
      const options = ['security', '--offline=true', '--no-pager', name];
      const { stdout } = await run('systemd-analyze', options, { env });
      return Number(/Overall exposure level for .*: ([\d.]+)/.exec(stdout)?.[1]);
    };
    const [before, now] = [await exposureOf(`bare-${unit}`), await exposureOf(unit)];
    t.ok(now <= before, `${unit}: ${now} with our drop-in, ${before} without`);
  }
  for (const [unit, limit] of exposures) {
    const { stdout } = await run(
      'systemd-analyze',
      ['security', '--offline=true', '--no-pager', `--threshold=${limit * 10}`, unit],
      { env },
    );
    const exposure = Number(/Overall exposure level for .*: ([\d.]+)/.exec(stdout)?.[1]);
    t.ok(exposure <= limit, `${unit}: ${exposure}`);
    const more = ['security', '--offline=true', '--no-pager', '--threshold=5', unit];
    await t.rejects(run('systemd-analyze', more, { env }), `${unit}: the threshold can fail`);
  }
});

t.test('the right to ARP, where there is no BGP, keeps the daemon below 2.0', async (t) => {
  const { env, directory } = await stage(t);
  await writeFile(join(directory, 'bornemisza@app.service.d/layer2.conf'), DROP_IN_TEXT);
  const unit = 'bornemisza@app.service';
  const verified = await run('systemd-analyze', ['verify', unit], { env });
  t.equal(verified.stdout + verified.stderr, '');
  const { stdout } = await run(
    'systemd-analyze',
    ['security', '--offline=true', '--no-pager', '--threshold=20', unit],
    { env },
  );
  t.match(stdout, /AF_PACKET/);
});

t.test(
  'users and groups come out of sysusers, and every name that tmpfiles needs is among them',
  async (t) => {
    const root = t.testdir();
    await mkdir(join(root, 'etc'));
    await run('systemd-sysusers', [`--root=${root}`, join(source, 'sysusers.d/bornemisza.conf')]);
    const names = async (file: string): Promise<string[]> =>
      (await readFile(join(root, 'etc', file), 'utf8')).split('\n').map((line) => line.replace(/:.*/, ''));
    const [users, groups] = [await names('passwd'), await names('group')];
    const lines = (await readFile(join(source, 'tmpfiles.d/bornemisza.conf'), 'utf8'))
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
    t.ok(lines.length > 5);
    for (const line of lines) {
      const [, path = '', , user = '', group = ''] = line.split(/\s+/);
      t.ok(user === 'root' || users.includes(user), `${path}: user ${user}`);
      t.ok(group === 'root' || groups.includes(group), `${path}: group ${group}`);
    }
  },
);
