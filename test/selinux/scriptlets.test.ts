/** bornemisza-selinux beside Debian's policy, or the one that LAB_SELINUX=DIRECTORY names; see CONTRIBUTING.md. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { buildPackage } from '../../scripts/rpm.ts';
import { makeRoot, must, placeGivenPolicy, runScriptlet } from './tree.ts';

const OURS = 'bornemisza_haproxy_t';
/** What a boot with SELinux enforcing showed to be asked for: source, target, class, permission. */
const NEEDED = [
  // At a reload HAProxy executes itself by its path.
  [OURS, 'bin_t', 'dir', 'search'],
  [OURS, 'haproxy_exec_t', 'file', 'entrypoint'],
  // The unit has no new privileges.
  ['init_t', OURS, 'process2', 'nnp_transition'],
  // The directories of both roles, at boot.
  ['systemd_tmpfiles_t', 'bornemisza_haproxy_var_lib_t', 'dir', 'create'],
  [OURS, 'bornemisza_haproxy_var_run_t', 'sock_file', 'rename'],
  [OURS, 'http_port_t', 'tcp_socket', 'name_bind'],
] as const;

const directory = await mkdtemp('/var/tmp/bornemisza-selinux-');
t.teardown(() => rm(directory, { recursive: true, force: true }));
const root = join(directory, 'root');
const { selinux } = await buildPackage({ out: join(directory, 'rpm'), bundle: false });
await makeRoot(root, ['libc-bin', 'base-files', 'dash', 'coreutils', 'selinux-utils', 'policycoreutils']);
await must('sh', ['-c', 'rpm2cpio "$1" | cpio -idm --quiet', 'sh', selinux], root);

const scriptlet = (name: string, remaining: number): Promise<void> =>
  runScriptlet(root, selinux, name, remaining);

async function modules(): Promise<readonly string[]> {
  return (await must('chroot', [root, 'semodule', '-l'])).trim().split(/\s+/);
}

async function labelOf(path: string): Promise<string> {
  const contexts = join(root, 'etc/selinux/targeted/contexts/files/file_contexts');
  return (await must('matchpathcon', ['-n', '-f', contexts, path])).trim();
}

/** The rules of the compiled policy that allow it whatever its switches say; '' where none does. */
async function rules(source: string, target: string, kind: string, permission: string): Promise<string> {
  const compiled = join(root, 'etc/selinux/targeted/policy');
  const [file = ''] = await readdir(compiled);
  const asked = ['-A', '-s', source, '-t', target, '-c', kind, '-p', permission];
  const found = await must('sesearch', [...asked, join(compiled, file)]);
  // A rule of a switch: `allow a b:dir create; [ switch ]:True`.
  return found
    .split('\n')
    .filter((line) => !line.includes('; ['))
    .join('\n')
    .trim();
}

t.test('the scriptlets load the module, keep it over an upgrade and take it away at the end', async (t) => {
  await placeGivenPolicy(root);
  t.notOk((await modules()).includes('bornemisza'));

  await scriptlet('POSTIN', 1);
  t.ok((await modules()).includes('bornemisza'), 'installed');
  t.match(await labelOf('/var/lib/bornemisza/haproxy/app/haproxy.cfg'), 'bornemisza_haproxy_var_lib_t');
  for (const run of ['/run', '/var/run'])
    t.match(await labelOf(`${run}/bornemisza-haproxy/app`), 'bornemisza_haproxy_var_run_t', run);
  for (const [source, target, kind, permission] of NEEDED)
    t.not(await rules(source, target, kind, permission), '', `${source} may ${permission} ${target}:${kind}`);
  t.equal(await rules(OURS, OURS, 'process', 'execmem'), '');

  await scriptlet('POSTUN', 1);
  t.ok((await modules()).includes('bornemisza'), 'another version is there');
  await scriptlet('POSTUN', 0);
  t.notOk((await modules()).includes('bornemisza'), 'removed');
  t.notMatch(await labelOf('/var/lib/bornemisza/haproxy/app/haproxy.cfg'), 'bornemisza_haproxy_var_lib_t');
});
