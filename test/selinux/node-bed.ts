/** A machine of Debian's packages with our package installed by rpm: both roles, BIRD, and CouchDB's stand-in. */
import { cp, mkdir, readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { BuiltPackage } from '../../scripts/rpm.ts';
import { repository } from '../lab/layers.ts';
import { addAgent, type Machine, UML } from './machine.ts';
import { makeRoot, must, put } from './tree.ts';

/** Debian's packages in the machine. What they depend on comes along. */
const PACKAGES = [
  ...[
    'libc-bin',
    'base-files',
    'bash',
    'dash',
    'coreutils',
    'sed',
    'grep',
    'findutils',
    'util-linux',
    'mount',
  ],
  ...[
    'procps',
    'kmod',
    'iproute2',
    'systemd',
    'dbus',
    'selinux-utils',
    'policycoreutils',
    'rpm',
    'curl',
    'openssl',
    'bsdutils',
  ],
  ...['haproxy', 'bird2', 'nftables', 'socat', 'dnf', 'openssh-server'],
];

/** As Apache's package has it. */
const COUCHDB_UNIT = `[Unit]
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

const COUCHDB_START = `#!/bin/sh
exec /usr/libexec/bornemisza/node --max-semi-space-size=4 /opt/couchdb/lib/standin.mjs "$@"
`;
/** Nothing is installed from it, but dnf wants the key named. */
const REPOSITORY = `[lab]
name=lab
baseurl=file:///srv/repository
gpgkey=file:///srv/repository/key
gpgcheck=1
`;

/** A router with nobody to speak to. */
const BIRD = 'router id 198.51.100.11;\nprotocol device {}\n';
const PATIENT = '[Service]\nTimeoutStartSec=infinity\nWatchdogSec=0\n';

/** Makes at `root` the files of the machine, without a policy. */
export async function makeNodeRoot(root: string, building: Promise<BuiltPackage>): Promise<void> {
  await makeRoot(root, PACKAGES);
  await copyKernelModules(root);
  await put(root, '/etc/hostname', 'both1\n');
  await put(root, '/etc/hosts', '127.0.0.1 localhost\n10.77.0.11 both1\n');
  await put(root, '/etc/machine-id', '5e11a0c5e11a0c5e11a0c5e11a0c5e11\n');
  await put(root, '/etc/rpm/macros', '%_dbpath /var/lib/rpm\n');
  await addCouchdb(root);
  await addRepository(root);
  await addAgent(root);
  // Neighbours on this machine make the other one slow, which is no fault of what runs there.
  for (const unit of ['bornemisza@.service', 'bornemisza-haproxy@.service'])
    await put(root, `/etc/systemd/system/${unit}.d/lab.conf`, PATIENT);
  // Newer than /usr: nothing is brought up to date at boot.
  await put(root, '/etc/.updated', '');
  await put(root, '/var/.updated', '');
  const built = await building;
  for (const file of [built.file, built.selinux]) {
    await cp(file, join(root, basename(file)));
    // What it requires is Debian's, of which the database of the tree knows nothing.
    const install = ['rpm', '--install', '--nodeps', '--nosignature', `/${basename(file)}`];
    await must('chroot', [root, ...install]);
    await rm(join(root, basename(file)));
  }
  await put(root, '/etc/bird/bird.conf', BIRD);
  // It makes the firewall open its port.
  await put(root, '/etc/ssh/sshd_config', 'Port 22\n');
  await must('chroot', [root, 'chgrp', 'bird', '/etc/bird/bird.conf']);
}

/** Of 100 MB, what a network and a firewall need. */
const KERNEL_MODULES = [
  'drivers/net/veth.ko',
  'drivers/net/dummy.ko',
  'net/netfilter',
  'net/ipv4/netfilter',
  'net/ipv6',
  'lib',
];

async function copyKernelModules(root: string): Promise<void> {
  const modules = join(UML, 'lib/uml/modules');
  const [version = ''] = await readdir(modules);
  const to = join(root, 'usr/lib/modules', version);
  for (const path of KERNEL_MODULES)
    await cp(join(modules, version, 'kernel', path), join(to, 'kernel', path), { recursive: true });
  for (const name of await readdir(join(modules, version)))
    if (name.startsWith('modules.')) await cp(join(modules, version, name), join(to, name));
  await must('depmod', ['-b', join(root, 'usr'), version]);
}

/** Apache's package has all of a release in /opt/couchdb, and its data in /var/lib/couchdb. */
async function addCouchdb(root: string): Promise<void> {
  await put(root, '/usr/lib/systemd/system/couchdb.service', COUCHDB_UNIT);
  await put(root, '/usr/lib/sysusers.d/couchdb.conf', 'u couchdb - "CouchDB" /opt/couchdb -\n');
  await must('systemd-sysusers', [`--root=${root}`]);
  await put(root, '/opt/couchdb/bin/couchdb', COUCHDB_START);
  await must('chmod', ['0755', join(root, 'opt/couchdb/bin/couchdb')]);
  await mkdir(join(root, 'opt/couchdb/lib'), { recursive: true });
  await cp(join(repository, 'dist/standin.mjs'), join(root, 'opt/couchdb/lib/standin.mjs'));
  await mkdir(join(root, 'var/lib/couchdb'), { recursive: true });
  await must('chroot', [root, 'chown', 'couchdb:couchdb', '/var/lib/couchdb']);
}

/** Nothing newer than what is installed, for a dnf that is asked to upgrade it. */
async function addRepository(root: string): Promise<void> {
  await mkdir(join(root, 'srv/repository'), { recursive: true });
  await must('createrepo_c', ['--quiet', join(root, 'srv/repository')]);
  await put(root, '/etc/yum.repos.d/lab.repo', REPOSITORY);
  await put(root, '/etc/dnf/dnf.conf', '[main]\nplugins=0\n');
}

/** A public device with a default route and a private one; nothing is at their other ends. */
export async function startNetwork(machine: Machine): Promise<void> {
  await machine.must(`set -e
ip link set lo up
ip link add eth0 type veth peer name wire0
ip link add eth1 type veth peer name wire1
for device in eth0 wire0 eth1 wire1; do ip link set $device up; done
ip addr add 198.51.100.11/24 dev eth0
ip addr add 10.77.0.11/24 dev eth1
ip route add default via 198.51.100.1`);
}
