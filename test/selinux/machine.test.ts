/**
 * bornemisza-selinux and its scriptlets beside Debian's policy, or the one that LAB_SELINUX=DIRECTORY names; then the
 * product on a machine that enforces that policy, and its end without the module. See CONTRIBUTING.md.
 */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { buildPackage } from '../../scripts/rpm.ts';
import { until } from '../support/until.ts';
import {
  beginCluster,
  joinDatabase,
  leave,
  OURS,
  reloadHaproxy,
  requestUpgrade,
  seeDomains,
  setUpAppTier,
  useDeadman,
  withdraw,
} from './life.ts';
import { Machine, makeImage, POLICY } from './machine.ts';
import { makeNodeRoot, startNetwork } from './node-bed.ts';
import { domainsOf, refusals, SETTLE_MS } from './product.ts';
import { givenPolicy, must, placeGivenPolicy, runScriptlet } from './tree.ts';

t.setTimeout(3_600_000);
/** The kernel needs one second; without a look at what it prints, one waits for the whole time of a boot. */
const PANIC_SEEN_MS = 120_000;
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
const built = await buildPackage({ out: join(directory, 'rpm'), bundle: false });
await makeNodeRoot(root, built);
await placeGivenPolicy(root);

const scriptlet = (name: string, remaining: number): Promise<void> =>
  runScriptlet(root, built.selinux, name, remaining);

async function modules(): Promise<readonly string[]> {
  return (await must('chroot', [root, 'semodule', '-l'])).trim().split(/\s+/);
}

async function labelOf(path: string): Promise<string> {
  const contexts = join(root, POLICY, 'contexts/files/file_contexts');
  return (await must('matchpathcon', ['-n', '-f', contexts, path])).trim();
}

/** The rules of the compiled policy that allow it whatever its switches say; '' where none does. */
async function rules(source: string, target: string, kind: string, permission: string): Promise<string> {
  const compiled = join(root, POLICY, 'policy');
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

/** HAProxy's unit, on the machine from which the module was removed. */
async function startWithout(t: Test, machine: Machine): Promise<void> {
  const unit = 'bornemisza-haproxy@db.service';
  await machine.must(`systemctl start --no-block ${unit}`);
  if (givenPolicy === '') {
    // Debian's policy leaves process 1, and what stays in its domain, unconfined.
    const seen = await until(
      async () => {
        const domains = await domainsOf(machine, unit);
        return domains.length > 0 ? domains : undefined;
      },
      { deadlineMs: SETTLE_MS, everyMs: 1000, what: 'HAProxy' },
    );
    t.same(seen, ['init_t']);
    return;
  }
  await until(async () => Number(await machine.must(`systemctl show -P NRestarts ${unit}`)) >= 2, {
    deadlineMs: SETTLE_MS,
    everyMs: 1000,
    what: 'two restarts',
  });
  t.match((await refusals(machine)).join('\n'), /haproxy/);
}

t.test('a machine whose kernel panics is given up at once', async (t) => {
  const image = join(directory, 'empty');
  await must('truncate', ['--size=1M', image]);
  const sinceMs = performance.now();
  await t.rejects(Machine.boot(image), /Kernel panic/);
  t.ok(performance.now() - sinceMs < PANIC_SEEN_MS);
});

t.test('the scriptlet loads the module, and keeps it over an upgrade', async (t) => {
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
});

t.test('a node of both roles does its work, and nothing is refused', async (t) => {
  const image = join(directory, 'image');
  await makeImage(root, image);
  const machine = await Machine.boot(image);
  t.teardown(() => machine.close());
  t.equal(await machine.must('getenforce'), 'Enforcing\n');
  await startNetwork(machine);
  const step = async (name: string, run: (t: Test, machine: Machine) => Promise<void>): Promise<void> => {
    await t.test(name, async (t) => {
      await run(t, machine);
      t.same(await refusals(machine), []);
    });
  };
  await step('init with BGP, and the start of role app', beginCluster);
  await step('role db joins, and CouchDB restarts on request', joinDatabase);
  await step('each process is where it belongs', seeDomains);
  await step('a reload of each HAProxy', async (t) => {
    for (const role of ['app', 'db']) await reloadHaproxy(t, machine, role);
  });
  await step('the app tier, with its test mail', setUpAppTier);
  await step('maintenance withdraws the floating IP', withdraw);
  await step('the dead-man switch takes the floating IP off', useDeadman);
  await step('a request to upgrade', requestUpgrade);
  await step('role app leaves for good', leave);
  await t.test('the last erasure of the package takes the module away', async (t) => {
    await machine.must('systemctl stop bornemisza.target bornemisza@db bornemisza-haproxy@db', SETTLE_MS);
    await machine.must('rpm --erase --nodeps bornemisza-selinux', SETTLE_MS);
    t.same(await refusals(machine), []);
    t.notMatch(await machine.must('semodule -l'), /^bornemisza$/m);
    t.notMatch(await machine.must('stat -c %C /var/lib/bornemisza/haproxy'), 'bornemisza');
  });
  await t.test('without the module HAProxy has no domain of its own, and EL refuses what it does', (t) =>
    startWithout(t, machine),
  );
});
