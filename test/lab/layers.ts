/**
 * The file system of a lab's hosts: three read-only layers under a writable one per host.
 *
 *     host's own tmpfs (kept over reboots)      what the host writes, and its own few files
 *     "files"                                   what is installed on every host of this lab
 *     "hidden"                                  whiteouts: what this machine has enabled must not start in hosts
 *     /                                         this machine, with every installed package
 */
import { createHash } from 'node:crypto';
import {
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  readdir,
  readFile,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  bgpPassword,
  customerAs,
  gatewayAddress,
  providerAddress,
  providerAs,
  publicAddress,
} from './addresses.ts';
import { PROGRAM_PARTS } from '../../scripts/parts.ts';
import { must } from './process.ts';

export const repository = fileURLToPath(new URL('../../', import.meta.url));

/** A file to be put into a host: its text, or more. Owner and group by name; default root, 0644. */
export type HostFile =
  | string
  | {
      readonly content: string | Uint8Array;
      readonly mode?: number;
      readonly owner?: string;
      readonly group?: string;
    };

/** SOURCE on this machine, mounted read-only at TARGET in the host. */
export type Bind = { readonly source: string; readonly target: string };

export type LayerOptions = {
  /** The daemon's bundle. */
  readonly bundle: string;
  /** An installed CouchDB release, or undefined for the stand-in. */
  readonly couchdb: string | undefined;
  /** Without the project's own files: a package is going to bring them. */
  readonly bare: boolean;
};

/** Units of the distribution that only slow a host down, or that act on the machine as a whole. */
const masked = [
  'getty.target',
  'systemd-logind.service',
  'systemd-udevd.service',
  'systemd-udev-trigger.service',
  'systemd-timesyncd.service',
  'systemd-update-utmp.service',
  'systemd-update-utmp-runlevel.service',
  'systemd-tmpfiles-clean.timer',
  'systemd-random-seed.service',
  'proc-sys-fs-binfmt_misc.automount',
  'dev-hugepages.mount',
  'sys-kernel-config.mount',
  'sys-kernel-debug.mount',
  'sys-kernel-tracing.mount',
  'sys-fs-fuse-connections.mount',
];

/** Programs that systemd starts at each boot and reload, for units that no host of a lab has. */
const generators = '/usr/lib/systemd/system-generators';

/**
 * Directories of which hosts see nothing: this machine's enabled units, old init scripts, own journal, own additions.
 */
const hidden = ['etc/systemd/system', 'etc/init.d', 'var/log/journal', 'opt'];

/** Fixed, so that files kept from one lab mean the same in the next. */
const users = `u couchdb 5984 "CouchDB" /opt/couchdb -
u bornemisza 2101 "Bornemisza cluster daemon" /var/lib/bornemisza -
u bornemisza-haproxy 2102 "HAProxy of Bornemisza" / -
`;
const bareUsers = 'u couchdb 5984 "CouchDB" /opt/couchdb -\n';

/** As Apache's package has it. */
const couchdbUnit = `[Unit]
Description=Apache CouchDB
Wants=network-online.target
After=network-online.target

[Service]
RuntimeDirectory=couchdb
User=couchdb
Group=couchdb
ExecStart=/opt/couchdb/bin/couchdb
Restart=always

[Install]
WantedBy=multi-user.target
`;

const wrapper = `#!/bin/sh
exec /usr/libexec/bornemisza/node /usr/libexec/bornemisza/bornemisza.mjs "$@"
`;

const journal = `[Journal]
Storage=persistent
SystemMaxUse=64M
RateLimitIntervalSec=0
`;

/** The layers of one lab, in the tmpfs mounted at `directory`. */
export class Layers {
  readonly #directory: string;
  readonly #options: LayerOptions;
  readonly binds: Bind[] = [];

  constructor(directory: string, options: LayerOptions) {
    this.#directory = directory;
    this.#options = options;
  }

  /** For overlayfs, topmost first. */
  get lower(): string {
    return `${this.#directory}/files:${this.#directory}/hidden:/`;
  }

  async create(): Promise<void> {
    await must(['mount', '-t', 'tmpfs', '-o', 'mode=0755,size=64m', 'lab', this.#directory]);
    await this.#hide();
    const files = `${this.#directory}/files`;
    for (const name of ['passwd', 'group', 'shadow', 'gshadow'])
      await this.#copy(`/etc/${name}`, `/etc/${name}`);
    await this.#put('/etc/systemd/journald.conf.d/lab.conf', journal);
    await this.#put('/etc/resolv.conf', '# a lab has no name servers\n');
    await this.#put('/usr/lib/systemd/system/couchdb.service', couchdbUnit);
    await this.#put('/run/lab/sysusers.conf', this.#options.bare ? bareUsers : users);
    for (const unit of masked) {
      const link = await this.#room(`/etc/systemd/system/${unit}`);
      await symlink('/dev/null', link);
    }
    for (const generator of await readdir(generators)) {
      await symlink('/dev/null', await this.#room(`/etc/systemd/system-generators/${generator}`));
    }
    await mkdir(await this.#room('/var/log/journal'), { mode: 0o755 });
    if (!this.#options.bare) await this.#install();
    await this.#couchdb();
    const lists = [`${files}/run/lab/sysusers.conf`];
    if (!this.#options.bare) lists.push(`${files}/usr/lib/sysusers.d/bornemisza.conf`);
    await must(['systemd-sysusers', `--root=${files}`, ...lists]);
    await this.#makeCouchdbHome();
    // Newer than /usr: nothing is to be brought up to date at boot.
    await this.#put('/etc/.updated', '');
    await this.#put('/var/.updated', '');
  }

  /** What `systemctl enable` would have left behind, in a layer: the units start with the host. */
  async enable(layer: string, units: readonly string[]): Promise<void> {
    for (const unit of units) {
      const link = await this.#room(`/etc/systemd/system/multi-user.target.wants/${unit}`, layer);
      await symlink(`/usr/lib/systemd/system/${unit.replace(/@.+\./, '@.')}`, link);
    }
  }

  /** Writes a file into a layer or a host's upper directory; new directories look as they do in the layers below. */
  async place(layer: string, path: string, file: HostFile): Promise<void> {
    const {
      content,
      mode = 0o644,
      owner = 'root',
      group,
    } = typeof file === 'string' ? { content: file } : file;
    const room = await this.#room(path, layer);
    await writeFile(room, content);
    await chmod(room, mode);
    const ids = await this.#identities();
    const uid = ids.users.get(owner);
    const gid = ids.groups.get(group ?? owner);
    if (uid === undefined || gid === undefined)
      throw new Error(`${path}: no user ${owner} or group ${group ?? owner}`);
    await chown(room, uid, gid);
  }

  #put(path: string, file: HostFile): Promise<void> {
    return this.place(`${this.#directory}/files`, path, file);
  }

  async #copy(source: string, path: string): Promise<void> {
    const { mode } = await stat(source);
    const room = await this.#room(path);
    await cp(source, room);
    await chmod(room, mode & 0o7777);
  }

  /** A whiteout is a character device 0:0; a directory in a layer above it starts empty. */
  async #hide(): Promise<void> {
    for (const path of hidden) {
      const whiteout = join(this.#directory, 'hidden', path);
      await mkdir(dirname(whiteout), { recursive: true });
      await must(['mknod', whiteout, 'c', '0', '0']);
    }
    await mkdir(`${this.#directory}/files`);
    await chmod(`${this.#directory}/files`, 0o755);
  }

  /** The project's files, from the tree, where its package puts them. */
  async #install(): Promise<void> {
    const systemd = join(repository, 'systemd');
    for (const [from, to] of [
      ['system', '/usr/lib/systemd/system'],
      ['sysusers.d', '/usr/lib/sysusers.d'],
      ['tmpfiles.d', '/usr/lib/tmpfiles.d'],
      ['system-preset', '/usr/lib/systemd/system-preset'],
    ] as const) {
      await this.#copyTree(join(systemd, from), to);
    }
    await this.#copy(join(systemd, 'haproxy-first.cfg'), '/usr/share/bornemisza/haproxy-first.cfg');
    await this.#put('/usr/bin/bornemisza', { content: wrapper, mode: 0o755 });
    const libexec = '/usr/libexec/bornemisza';
    for (const name of ['deadman', 'unit-watch', 'couchdb', 'take-request', 'firewall', 'firewall-undo'])
      await this.#copy(join(systemd, name), `${libexec}/${name}`);
    this.binds.push(
      { source: join(repository, 'node_modules/node/bin/node'), target: `${libexec}/node` },
      { source: this.#options.bundle, target: `${libexec}/bornemisza.mjs` },
    );
    // The app tier, where the tree was built as a whole.
    for (const [from, to] of [
      ['dist/app.mjs', `${libexec}/app.mjs`],
      ['dist/web', '/usr/share/bornemisza/web'],
    ] as const) {
      const source = join(repository, from);
      if (await exists(source)) this.binds.push({ source, target: to });
    }
    const { bundle } = this.#options;
    const map = `${bundle}.map`;
    if (await exists(map)) this.binds.push({ source: map, target: `${libexec}/bornemisza.mjs.map` });
    for (const part of Object.keys(PROGRAM_PARTS)) {
      for (const name of [`${part}.mjs`, `${part}.mjs.map`]) {
        const source = join(dirname(bundle), name);
        if (await exists(source)) this.binds.push({ source, target: `${libexec}/${name}` });
      }
    }
  }

  async #copyTree(from: string, to: string): Promise<void> {
    for (const entry of await readdir(from, { withFileTypes: true, recursive: true })) {
      if (!entry.isFile()) continue;
      const source = join(entry.parentPath, entry.name);
      await this.#put(join(to, source.slice(from.length)), await readFile(source, 'utf8'));
    }
  }

  /** A release is mounted as it is. The stand-in finds its imports in the tree, so the tree comes along. */
  async #couchdb(): Promise<void> {
    const release = this.#options.couchdb;
    if (release === undefined) {
      this.binds.push({ source: repository.replace(/\/$/, ''), target: '/opt/bornemisza-tree' });
      await symlink('/opt/bornemisza-tree/test/standin/couchdb', await this.#room('/opt/couchdb'));
      return;
    }
    if (!(await exists(join(release, 'bin/couchdb')))) throw new Error(`${release} has no bin/couchdb`);
    this.binds.push({ source: release, target: '/opt/couchdb' });
  }

  async #makeCouchdbHome(): Promise<void> {
    const home = await this.#room('/var/lib/couchdb');
    await mkdir(home, { mode: 0o750 });
    const ids = await this.#identities();
    await chown(home, ids.users.get('couchdb') ?? 0, ids.groups.get('couchdb') ?? 0);
  }

  /** The path inside a layer, with its parent directories made in the likeness of this machine's. */
  async #room(path: string, layer = `${this.#directory}/files`): Promise<string> {
    let made = '';
    for (const part of dirname(path).split('/').filter(Boolean)) {
      made = `${made}/${part}`;
      const directory = layer + made;
      if (await exists(directory)) continue;
      await mkdir(directory);
      const like = await stat(made).catch(() => undefined);
      await chmod(directory, like === undefined ? 0o755 : like.mode & 0o7777);
      if (like !== undefined) await chown(directory, like.uid, like.gid);
    }
    return layer + path;
  }

  async #identities(): Promise<{
    readonly users: Map<string, number>;
    readonly groups: Map<string, number>;
  }> {
    const read = async (name: string): Promise<Map<string, number>> => {
      const own = `${this.#directory}/files/etc/${name}`;
      const text = await readFile((await exists(own)) ? own : `/etc/${name}`, 'utf8');
      return new Map(text.split('\n').map((line) => [line.split(':')[0] ?? '', Number(line.split(':')[2])]));
    };
    return { users: await read('passwd'), groups: await read('group') };
  }
}

export async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

/** What makes one host different from the next. */
export function hostFiles(host: {
  readonly labId: string;
  readonly name: string;
  readonly index: number;
  readonly carriesApp: boolean;
  readonly names: readonly (readonly [address: string, name: string])[];
  readonly floatingAddresses: readonly string[];
  readonly bfd: boolean;
}): Record<string, HostFile> {
  const hosts = [
    '127.0.0.1 localhost',
    ...host.names.map(([address, name]) => `${address} ${name}.lab.test ${name}`),
  ];
  const files: Record<string, HostFile> = {
    '/etc/hostname': `${host.name}\n`,
    '/etc/hosts': `${hosts.join('\n')}\n`,
    '/etc/machine-id': { content: `${machineId(host.labId, host.name)}\n`, mode: 0o444 },
  };
  if (host.carriesApp)
    files['/etc/bird/bird.conf'] = { content: birdConfiguration(host), mode: 0o640, group: 'bird' };
  return files;
}

const machineId = (labId: string, name: string): string =>
  createHash('sha256').update(`${labId}/${name}`).digest('hex').slice(0, 32);

/**
 * What the operator's first set-up writes: the session and its limits are root's, what is announced is the daemon's.
 */
function birdConfiguration(host: {
  readonly index: number;
  readonly floatingAddresses: readonly string[];
  readonly bfd: boolean;
}): string {
  const allowed = host.floatingAddresses.map((address) => `${address}/32`).join(', ');
  return `log stderr { info, remote, warning, error, auth, fatal, bug };
router id ${publicAddress(host.index)};

protocol device { scan time 10; }

# Nothing but the floating addresses ever leaves, whatever an included file says.
filter floating_addresses {
  if net ~ [ ${allowed} ] then accept;
  reject;
}

protocol static to_provider {
  ipv4;
  route ${providerAddress}/32 via ${gatewayAddress};
}
${host.bfd ? '\nprotocol bfd { multihop { interval 100 ms; multiplier 3; }; }\n' : ''}
protocol bgp provider {
  local ${publicAddress(host.index)} as ${customerAs};
  neighbor ${providerAddress} as ${providerAs};
  multihop 2;
  password "${bgpPassword}";
  hold time 9;
  keepalive time 3;
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 5;
  graceful restart off;${host.bfd ? '\n  bfd yes;' : ''}
  ipv4 {
    import none;
    export filter floating_addresses;
  };
}

include "/etc/bird/bornemisza.d/*.conf";
`;
}
