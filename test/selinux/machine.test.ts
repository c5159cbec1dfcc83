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
  byCloudInit,
  hasNftables,
  inLogin,
  joinDatabase,
  leave,
  OURS,
  reloadHaproxy,
  requestUpgrade,
  seeDomains,
  seeStarted,
  setUpAppTier,
  useDeadman,
  useFirewall,
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
const building = buildPackage({ out: join(directory, 'rpm'), bundle: false });
await makeNodeRoot(root, building);
await placeGivenPolicy(root);
const built = await building;
const modulesBefore = await modules();
await runScriptlet(root, built.selinux, 'POSTIN', 1);
const image = join(directory, 'image');
await makeImage(root, image);
const imageOfOther = join(directory, 'other');
await must('cp', ['--sparse=always', image, imageOfOther]);
const imageEmpty = join(directory, 'empty');
await must('truncate', ['--size=1M', imageEmpty]);

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
  // As a reboot does: Debian's policy has no label for it, so restorecon leaves the module's, which nobody knows now.
  await machine.must(
    'rm -rf /run/bornemisza-haproxy; systemd-tmpfiles --create /usr/lib/tmpfiles.d/bornemisza.conf',
  );
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
  t.match((await refusals(machine)).join('\n'), /\{ rename \} .* comm="haproxy" .* scontext=\S+:init_t:s0 /);
}

/** Boots a machine with its network. */
async function machineOf(t: Test, image: string): Promise<Machine> {
  const machine = await Machine.boot(image);
  t.teardown(() => machine.close());
  t.equal(await machine.must('getenforce'), 'Enforcing\n');
  await startNetwork(machine);
  return machine;
}

/** Subtests after which nothing was refused. */
type Step = (name: string, run: (t: Test, machine: Machine) => Promise<void>) => Promise<void>;

function stepsOf(t: Test, machine: Machine): Step {
  return async (name, run) => {
    await t.test(name, async (t) => {
      await run(t, machine);
      t.same(await refusals(machine), []);
    });
  };
}

// Each machine has one processor.
t.jobs = 4;

t.test('a machine whose kernel panics is given up at once', async (t) => {
  const sinceMs = performance.now();
  await t.rejects(Machine.boot(imageEmpty), /Kernel panic/);
  t.ok(performance.now() - sinceMs < PANIC_SEEN_MS);
});

t.test('the scriptlet loads the module, and keeps it over an upgrade', async (t) => {
  t.notOk(modulesBefore.includes('bornemisza'));
  t.ok((await modules()).includes('bornemisza'), 'installed');
  t.match(await labelOf('/var/lib/bornemisza/haproxy/app/haproxy.cfg'), 'bornemisza_haproxy_var_lib_t');
  for (const run of ['/run', '/var/run'])
    t.match(await labelOf(`${run}/bornemisza-haproxy/app`), 'bornemisza_haproxy_var_run_t', run);
  for (const [source, target, kind, permission] of NEEDED)
    t.not(await rules(source, target, kind, permission), '', `${source} may ${permission} ${target}:${kind}`);
  t.equal(await rules(OURS, OURS, 'process', 'execmem'), '');
  await runScriptlet(root, built.selinux, 'POSTUN', 1);
  t.ok((await modules()).includes('bornemisza'), 'another version is there');
});

t.test('a node of both roles does its work, and nothing is refused', async (t) => {
  const machine = await machineOf(t, image);
  const step = stepsOf(t, machine);
  const setUp = givenPolicy === '' ? inLogin : byCloudInit;
  await step('init with BGP, and the start of role app', (t, machine) => beginCluster(t, machine, setUp));
  await step('role db joins, and CouchDB restarts on request', (t, machine) =>
    joinDatabase(t, machine, setUp),
  );
  await step('each process is where it belongs', seeDomains);
  await step('a reload of each HAProxy', async (t) => {
    for (const role of ['app', 'db']) await reloadHaproxy(t, machine, role);
  });
  await step('the app tier, with its test mail', (t, machine) => setUpAppTier(t, machine, setUp));
  if (await hasNftables(machine)) await step('the firewall, on trial and kept', useFirewall);
  else t.comment('the firewall is not run: nf_tables of this kernel takes no table of family inet');
  await step('maintenance withdraws the floating IP', withdraw);
  await step('the dead-man switch takes the floating IP off', useDeadman);
  await step('a request to upgrade', requestUpgrade);
  await step('what ran for a moment was where it belongs', seeStarted);
  await step('role app leaves for good', leave);
});

t.test('without the module HAProxy has no domain of its own, and EL refuses what it does', async (t) => {
  const machine = await machineOf(t, imageOfOther);
  const step = stepsOf(t, machine);
  if (givenPolicy !== '') {
    await step('init in a login', (t, machine) => beginCluster(t, machine, inLogin));
    await step('join in a login', (t, machine) => joinDatabase(t, machine, inLogin));
  }
  await step('with the module', async (t) => {
    await machine.must('systemctl start bornemisza-haproxy@db', SETTLE_MS);
    t.same(await domainsOf(machine, 'bornemisza-haproxy@db.service'), [OURS]);
  });
  await step('the last erasure of the package takes the module away', async (t) => {
    await machine.must('systemctl stop bornemisza.target bornemisza@db bornemisza-haproxy@db', SETTLE_MS);
    await machine.must('rpm --erase --nodeps bornemisza-selinux', SETTLE_MS);
    t.notMatch(await machine.must('semodule -l'), /^bornemisza$/m);
    t.notMatch(await machine.must('stat -c %C /var/lib/bornemisza/haproxy'), 'bornemisza');
  });
  await t.test('and without it', (t) => startWithout(t, machine));
});
