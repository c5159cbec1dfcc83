import { access, readFile, stat, statfs } from 'node:fs/promises';
import { readAccounts } from '../../host/account.ts';
import { USUAL_DIRECTORY } from '../../host/couchdb-directory.ts';
import { diskRoom } from '../../host/disk-room.ts';
import { memoryStall, STALL_BEGINS } from '../../host/pressure.ts';
import { answered } from '../answered.ts';
import type { Host } from '../io.ts';
import { couchdbPlace } from '../setup/couchdb-place.ts';
import { areaOf, type Check, unlessSilent } from './check.ts';
import { checkUnits, unitsOfHost } from './units.ts';

const host = areaOf('host');
/** The type stripping and APIs of Node.js 24 are needed. */
const MIN_NODE_MAJOR = 24;

/**
 * Checks of the machine, independent of its roles.
 *
 * @param configured false: it has no role yet, and `roles` are the possible ones
 */
export async function checkHost(
  of: Host,
  root: string,
  roles: readonly string[],
  configured: boolean,
): Promise<Check[]> {
  const checks = [
    runtime(),
    await account(root),
    ...(await unlessSilent(host, 'clock', async () => [await clock(of)])),
    ...(await disks(root, roles)),
    await memory(),
    ...(await unlessSilent(host, 'haproxy', async () => [await haproxy(of)])),
  ];
  if (roles.includes('app')) checks.push(...(await unlessSilent(host, 'bird', async () => [await bird(of)])));
  if (roles.includes('db'))
    checks.push(...(await unlessSilent(host, 'couchdb', async () => [await couchdb(of, root)])));
  if (configured && root === '') checks.push(...(await checkUnits(of, unitsOfHost())));
  return checks;
}

function runtime(): Check {
  const major = Number(process.versions.node.split('.')[0]);
  if (major >= MIN_NODE_MAJOR) return host.ok('runtime', `Node.js ${process.versions.node}`);
  return host.fail(
    'runtime',
    `Node.js ${process.versions.node} is too old`,
    `run it with Node.js ${MIN_NODE_MAJOR}: /usr/bin/bornemisza brings its own`,
  );
}

async function account(root: string): Promise<Check> {
  if (root !== '') return host.ok('user', 'your own, as paths lie under --root');
  const { users } = await readAccounts();
  const missing = ['bornemisza', 'bornemisza-haproxy'].filter((name) => !users.has(name));
  if (missing.length === 0) return host.ok('user', 'bornemisza and bornemisza-haproxy exist');
  return host.warn(
    'user',
    `no user ${missing.join(', ')} yet`,
    'systemd-sysusers bornemisza.conf (`bornemisza init` and `join` do it)',
  );
}

/** The dates of certificates and of the audit trail depend on the clock. */
async function clock(of: Host): Promise<Check> {
  const program = process.argv[1];
  const installedMs =
    program === undefined ? 0 : ((await stat(program).catch(() => undefined))?.mtimeMs ?? 0);
  if (Date.now() < installedMs) {
    return host.fail(
      'clock',
      `the clock shows ${new Date().toISOString()}, a time before this program was installed`,
      'set it: timedatectl set-ntp true',
    );
  }
  const said = answered(await of.run('timedatectl', ['show', '--property=NTPSynchronized', '--value']));
  if (said.code !== 0) return host.warn('clock', 'unknown whether NTP sets it', 'check with timedatectl');
  if (said.stdout.trim() === 'yes') return host.ok('clock', 'set by NTP');
  return host.warn('clock', 'not set by NTP', 'timedatectl set-ntp true (needs chrony or systemd-timesyncd)');
}

/** CouchDB's data are often on a file system of their own. */
async function disks(root: string, roles: readonly string[]): Promise<Check[]> {
  const [ours, data] = [`${root}/var/lib`, `${root}/var/lib/couchdb/data`];
  const device = async (path: string): Promise<number | undefined> =>
    (await stat(path).catch(() => undefined))?.dev;
  const own = roles.includes('db') ? await device(data) : undefined;
  const apart = own !== undefined && own !== (await device(ours));
  return Promise.all([disk('disk', ours), ...(apart ? [disk('data disk', data)] : [])]);
}

/** @param root where cgroup v2 is mounted */
export async function memory(root?: string): Promise<Check> {
  const stall = await memoryStall(root).catch(() => undefined);
  if (stall === undefined)
    return host.ok('memory', 'this kernel does not measure whether work waits for it (psi=1 turns it on)');
  const detail = `all work waited for it in ${Math.round(stall)} % of the last minute`;
  if (stall < STALL_BEGINS) return host.ok('memory', detail);
  return host.warn('memory', detail, 'ps -eo rss,comm --sort=-rss | head; then give the machine more memory');
}

async function disk(name: string, path: string): Promise<Check> {
  const facts = await statfs(path).catch(() => undefined);
  return facts === undefined
    ? host.warn(name, `${path} cannot be read`, `ls -ld ${path}`)
    : diskCheck(name, path, facts);
}

/** @param facts as statfs(2) gives them */
export function diskCheck(name: string, path: string, facts: Parameters<typeof diskRoom>[1]): Check {
  const { level, detail, next } = diskRoom(path, facts);
  if (level === 'full') return host.fail(name, detail, next);
  return level === 'low' ? host.warn(name, detail, next) : host.ok(name, detail);
}

async function haproxy(of: Host): Promise<Check> {
  const said = answered(await of.run('haproxy', ['-v']));
  const version = /version (\S+)/.exec(said.stdout)?.[1];
  if (said.code === 0 && version !== undefined) return host.ok('haproxy', `HAProxy ${version}`);
  return host.fail('haproxy', 'HAProxy is not installed', 'dnf install haproxy (or apt-get install haproxy)');
}

async function bird(of: Host): Promise<Check> {
  const said = answered(await of.run('bird', ['--version']));
  const version = /version (\S+)/.exec(said.stderr + said.stdout)?.[1];
  if (said.code === 0 && version !== undefined) return host.ok('bird', `BIRD ${version}`);
  return host.warn(
    'bird',
    'BIRD is not installed: no floating IP can be announced',
    'dnf install bird (EL: from EPEL) or apt-get install bird2',
  );
}

/** In a release the first word is the version of its Erlang, the second its own. */
const VERSIONS = 'releases/start_erl.data';

/**
 * Whether CouchDB is where the configuration says, whole, and starts as the user for whom the daemon writes its files.
 * An Erlang of its own is in each release.
 */
async function couchdb(of: Host, root: string): Promise<Check> {
  const directory = root + (await configuredDirectory(root));
  const lacks = async (file: string): Promise<boolean> =>
    access(`${directory}/${file}`).then(
      () => false,
      (error: NodeJS.ErrnoException) => error.code === 'ENOENT' || error.code === 'ENOTDIR',
    );
  if (await lacks('bin/couchdb')) {
    const place = await couchdbPlace(of, root);
    return host.fail(
      'couchdb',
      `CouchDB is not in ${directory}${place === undefined ? '' : `, but in ${place}`}`,
      place === undefined
        ? 'install it from Apache’s repository (https://docs.couchdb.org/en/stable/install/unix.html), or set ' +
            'couchdb.directory in /etc/bornemisza/db.toml to its place'
        : `set couchdb.directory = "${place}" in /etc/bornemisza/db.toml, then systemctl reload bornemisza@db`,
    );
  }
  const versions = await readFile(`${directory}/${VERSIONS}`, 'utf8').catch(() => undefined);
  const [erlang, version] = versions?.trim().split(/\s+/) ?? [];
  if (erlang !== undefined)
    for (const file of ['etc/default.ini', `erts-${erlang}/bin/erlexec`])
      if (await lacks(file))
        return host.fail(
          'couchdb',
          `${directory} has no ${file}: CouchDB cannot start`,
          'install CouchDB again, with the Erlang that it brings',
        );
  const user = root === '' ? await userOfUnit(of) : undefined;
  if (user !== undefined && user !== 'couchdb')
    return host.fail(
      'couchdb',
      `couchdb.service runs as ${user === '' ? 'root' : `user ${user}`}; the daemon writes its files for user couchdb`,
      'systemctl edit couchdb: below [Service] write User=couchdb and Group=couchdb; then systemctl restart couchdb',
    );
  if (version !== undefined) return host.ok('couchdb', `CouchDB ${version} in ${directory}`);
  return host.ok('couchdb', `CouchDB${versions === undefined ? '' : ' of unknown version'} in ${directory}`);
}

/** A configuration that cannot be read is reported with the role. */
async function configuredDirectory(root: string): Promise<string> {
  const { loadConfig, pathsFor } = await import('../../daemon/config/config.ts');
  const config = await loadConfig('db', pathsFor('db', root)).catch(() => undefined);
  return config?.couchdb.directory ?? USUAL_DIRECTORY;
}

/** Undefined: there is no such unit, or systemd does not say. */
async function userOfUnit(of: Host): Promise<string | undefined> {
  const asked = ['show', '--property=LoadState,User', 'couchdb.service'];
  const { code, stdout } = answered(await of.run('systemctl', asked));
  return code === 0 && /^LoadState=loaded$/m.test(stdout) ? /^User=(.*)$/m.exec(stdout)?.[1] : undefined;
}
