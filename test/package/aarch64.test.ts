/**
 * The aarch64 package on this x86_64 machine: it differs from the x86_64 one only by Node.js, and its daemon runs, in
 * qemu's user mode with Debian's libraries of that architecture, in a cluster with a node of x86_64.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { buildPackage } from '../../scripts/rpm.ts';
import type { StatusAnswer } from '../../src/daemon/control/api.ts';
import { repository as tree } from '../lab/layers.ts';
import { must, run } from '../lab/process.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

/** Start of a Node.js in qemu on a busy machine: 26 s were seen. */
const SLOW_MS = 120_000;
const ARCHITECTURES = ['x86_64', 'aarch64'] as const;
type Architecture = (typeof ARCHITECTURES)[number];
/** EM_X86_64 and EM_AARCH64 of elf(5), which stands at byte 18. */
const MACHINES = { x86_64: 62, aarch64: 183 } as const;
/** glibc of EL 9: neither package may need a newer one. */
const GLIBC = 34;
const NODE = '/usr/libexec/bornemisza/node';
const LIBRARIES = '/usr/aarch64-linux-gnu';

const directory = await mkdtemp('/var/tmp/bm-aarch64-');
t.teardown(() => rm(directory, { recursive: true, force: true }));
const built = {
  x86_64: await buildPackage({ arch: 'x86_64', out: join(directory, 'x86_64') }),
  aarch64: await buildPackage({ arch: 'aarch64', out: join(directory, 'aarch64'), bundle: false }),
};
for (const arch of ARCHITECTURES) {
  await mkdir(unpacked(arch));
  const unpack = 'cd "$2" && rpm2cpio "$1" | cpio --quiet --extract --make-directories';
  await must(['sh', '-euc', unpack, 'sh', built[arch].file, unpacked(arch)], { timeoutMs: SLOW_MS });
}

function unpacked(arch: Architecture): string {
  return join(directory, `files-${arch}`);
}

/** Lines of `rpm -qp`, in rpm's order. */
async function ofPackage(file: string, ...asked: readonly string[]): Promise<string[]> {
  const text = await must(['rpm', '-qp', '--nosignature', ...asked, file]);
  return text.split('\n').filter((line) => line !== '');
}

t.test('files, scriptlets, licences and needs are those of x86_64, but for Node.js', async (t) => {
  const format =
    '[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS} %{FILEDIGESTS}\n]';
  const files = async (arch: Architecture) => ofPackage(built[arch].file, '--qf', format);
  const [ours, theirs] = [await files('x86_64'), await files('aarch64')];
  t.ok(ours.length > 90, `${ours.length} files`);
  const others = (lines: readonly string[]) => lines.filter((line) => !line.startsWith(`${NODE} `));
  t.same(others(theirs), others(ours));
  t.equal(theirs.length, others(theirs).length + 1);
  t.ok(built.aarch64.bytes <= 42_000_000, `${(built.aarch64.bytes / 1e6).toFixed(1)} MB`);

  const same = ['--scripts', '--triggers', '--conflicts', '--obsoletes', '--recommends', '--suggests'];
  for (const what of [...same, '--info', '--changelog']) {
    const told = async (arch: Architecture) =>
      (await ofPackage(built[arch].file, what)).filter((line) => !/^(Architecture|Size) *:/.test(line));
    t.same(await told('aarch64'), await told('x86_64'), what);
  }
  const without = async (arch: Architecture, what: string, pattern: RegExp): Promise<readonly string[]> =>
    (await ofPackage(built[arch].file, what)).filter((line) => !pattern.test(line));
  const name = /^bornemisza-node\((x86|aarch)-64\) = /;
  t.same(await without('aarch64', '--provides', name), await without('x86_64', '--provides', name));
  const library = /^(lib.*\.so|ld-linux)/;
  const needs = await without('x86_64', '--requires', library);
  t.same(await without('aarch64', '--requires', library), needs);
  // A fresh host has dnf's Python, but no other, and it may go with dnf 5.
  t.notMatch(needs.join('\n'), /python|perl/);

  const digest = (file: string) => ofPackage(file, '--qf', '%{SHA256HEADER} %{PAYLOADDIGEST}\n');
  t.same(await digest(built.aarch64.selinux), await digest(built.x86_64.selinux), 'one bornemisza-selinux');
});

t.test('Node.js inside is the pinned program of its architecture, for the C library of EL 9', async (t) => {
  const runtime = JSON.parse(await readFile(join(tree, 'rpm/runtime.json'), 'utf8')) as Record<
    Architecture,
    { readonly sha256: string }
  >;
  for (const arch of ARCHITECTURES) {
    const program = unpacked(arch) + NODE;
    const [digest] = (await must(['sha256sum', program])).split(' ');
    t.equal(digest, runtime[arch].sha256, arch);
    const file = await open(program);
    const { buffer: head } = await file.read(Buffer.alloc(20), 0, 20, 0);
    await file.close();
    // 64 bits, little-endian.
    t.equal(head.toString('latin1', 0, 6), '\u007fELF\u0002\u0001', arch);
    t.equal(head.readUInt16LE(18), MACHINES[arch], arch);
    const versions = (await ofPackage(built[arch].file, '--requires')).flatMap((need) =>
      [...need.matchAll(/GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor)),
    );
    t.ok(versions.length > 3, `${arch}: ${versions.join()}`);
    t.ok(Math.max(...versions) <= GLIBC, `${arch}: glibc 2.${Math.max(...versions)}`);
  }
});

/** Addresses of this process alone. */
const net = `127.${64 + (process.pid % 64)}.${(process.pid >> 6) & 255}`;
const env = { PATH: process.env['PATH'] ?? '' };

/** What starts the package's program on this machine. */
function command(arch: Architecture, argv: readonly string[]): [string, ...string[]] {
  const place = unpacked(arch);
  const program = [place + NODE, join(place, 'usr/libexec/bornemisza/bornemisza.mjs'), ...argv] as const;
  return arch === 'x86_64' ? [...program] : ['qemu-aarch64-static', '-L', LIBRARIES, ...program];
}

const bornemisza = (arch: Architecture, argv: readonly string[], stdin = '') =>
  run(command(arch, argv), { stdin, env, timeoutMs: SLOW_MS });

t.test('a node of aarch64 founds a cluster, and one of x86_64 joins it', async (t) => {
  const at = (arch: Architecture): readonly string[] => ['--root', join(directory, `root-${arch}`)];
  const start = (arch: Architecture): ChildProcess => {
    const [program, ...args] = command(arch, ['daemon', '--role', 'app', ...at(arch)]);
    const child = spawnWithUs(program, args, { stdio: 'ignore', env });
    t.teardown(() => void child.kill('SIGKILL'));
    return child;
  };
  const status = async (arch: Architecture): Promise<StatusAnswer> =>
    JSON.parse((await bornemisza('x86_64', ['status', '--json', ...at(arch)])).stdout) as StatusAnswer;

  t.match(await bornemisza('aarch64', ['--version']), { code: 0, stdout: /^\S+\n$/ });
  const init = ['init', '--role', 'app', '--cluster', 'shop', '--host', 'app1'];
  const made = await bornemisza('aarch64', [...init, '--private-address', `${net}.1`, ...at('aarch64')]);
  t.equal(made.code, 0, made.stderr);
  start('aarch64');
  await until(() => status('aarch64'), { deadlineMs: SLOW_MS, everyMs: 500, what: 'its daemon answers' });

  const token = await bornemisza('aarch64', ['token', 'create', '--role', 'app', ...at('aarch64')]);
  t.equal(token.code, 0, token.stderr);
  const join2 = ['join', '-', '--host', 'app2', '--private-address', `${net}.2`, ...at('x86_64')];
  const joined = await bornemisza('x86_64', join2, token.stdout);
  t.equal(joined.code, 0, joined.stderr);
  start('x86_64');
  for (const arch of ARCHITECTURES)
    await until(async () => (await status(arch)).counts.alive === 2, {
      deadlineMs: SLOW_MS,
      everyMs: 500,
      what: `the node of ${arch} sees both`,
    });
});
