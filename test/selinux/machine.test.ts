/**
 * bornemisza-selinux and its scriptlets beside Debian's policy, or the one that LAB_SELINUX=DIRECTORY names; then the
 * product on a machine that enforces that policy. See CONTRIBUTING.md.
 */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { buildPackage } from '../../scripts/rpm.ts';
import { until } from '../support/until.ts';
import { Machine, makeImage, POLICY } from './machine.ts';
import { makeNodeRoot, startNetwork } from './node-bed.ts';
import { domainsOf, refusals, SETTLE_MS, slowly, startRole, status, workersOf } from './product.ts';
import { givenPolicy, must, placeGivenPolicy, runScriptlet } from './tree.ts';

t.setTimeout(3_600_000);
const OURS = 'bornemisza_haproxy_t';
/** Where the policy puts what a unit starts and it has no domain for. */
const UNCONFINED = 'unconfined_service_t';
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

async function bootOf(t: Test, name: string): Promise<Machine> {
  const image = join(directory, name);
  await makeImage(root, image);
  const machine = await Machine.boot(image);
  t.teardown(() => machine.close());
  t.equal(await machine.must('getenforce'), 'Enforcing\n');
  return machine;
}

/** Runs a script as cloud-init does where the policy has a domain for it, as EL's has; else as a login does. */
async function setUp(t: Test, machine: Machine, script: string): Promise<void> {
  if (givenPolicy === '') {
    await machine.must(script, SETTLE_MS);
    return;
  }
  const program = Buffer.from(`#!/bin/sh\nset -e\nid -Z\n${script}\n`).toString('base64');
  const printed = ['StandardOutput', 'StandardError']
    .map((each) => `-p ${each}=append:/run/set-up.log`)
    .join(' ');
  const said = await machine.must(
    `echo ${program} | base64 -d >/usr/bin/cloud-init
      chmod 0755 /usr/bin/cloud-init
      restorecon /usr/bin/cloud-init
      rm -f /run/set-up.log
      systemd-run --quiet --wait --collect ${printed} /usr/bin/cloud-init
      code=$?; cat /run/set-up.log; exit $code`,
    SETTLE_MS,
  );
  t.match(said, ':cloud_init_t:');
}

async function beginCluster(t: Test, machine: Machine): Promise<void> {
  await setUp(
    t,
    machine,
    'bornemisza init --role app --cluster lab --host both1 --private-address 10.77.0.11 ' +
      '--floating-ip 203.0.113.10 --floating-mode bgp --bgp-neighbor 169.254.169.254 --bgp-as 64515 ' +
      '--bgp-local-as 65001 --recovery-file /root/recovery.txt',
  );
  await machine.must(`mkdir -p /srv/bornemisza/site && echo 'It works' >/srv/bornemisza/site/index.html
      cd /etc/bornemisza/services.d
      printf 'name = "site"\\nport = 8080\\npath_prefix = "/"\\nhealth_path = "/"\\n' >site.toml
      chgrp bornemisza site.toml; chmod 0640 site.toml
      systemctl enable --now bornemisza-site.service`);
  await startRole(machine, 'app');
  const answer = await until(async () => {
    const { output } = await machine.run(`curl -sSk --max-time 10 https://198.51.100.11/`);
    return output.includes('It works') ? output : undefined;
  }, slowly('the site behind HAProxy'));
  t.equal(answer, 'It works\n');
}

async function reloadHaproxy(t: Test, machine: Machine, role: string): Promise<void> {
  const before = await workersOf(machine, role);
  await machine.must(`systemctl reload bornemisza-haproxy@${role}.service`);
  await until(async () => (await workersOf(machine, role)) !== before, slowly('a new worker'));
  t.same(await domainsOf(machine, `bornemisza-haproxy@${role}.service`), [OURS]);
}

async function seeDomains(t: Test, machine: Machine, role: string, others: readonly string[]): Promise<void> {
  t.same(await domainsOf(machine, `bornemisza-haproxy@${role}.service`), [OURS]);
  for (const name of [`bornemisza@${role}`, ...others])
    t.same(await domainsOf(machine, `${name}.service`), [UNCONFINED], name);
}

/** The address stays on the device; its route is taken from BIRD. */
async function withdraw(t: Test, machine: Machine): Promise<void> {
  const announces = async (state: 'up' | 'down'): Promise<void> => {
    await until(
      async () => {
        const { output } = await machine.run('birdc show protocols bornemisza_floating');
        return new RegExp(`^bornemisza_floating .* ${state} `, 'm').test(output);
      },
      slowly(`the route of the floating IP ${state}`),
    );
  };
  await announces('up');
  await machine.must('bornemisza maintenance on --role app --force', SETTLE_MS);
  await announces('down');
  t.equal((await status(machine, 'app')).announcingWhy, 'maintenance');
  await machine.must('bornemisza maintenance off --role app', SETTLE_MS);
  await announces('up');
}

t.test('a machine whose kernel panics is given up at once', async (t) => {
  const image = join(directory, 'empty');
  await must('truncate', ['--size=1M', image]);
  const sinceMs = performance.now();
  await t.rejects(Machine.boot(image), /Kernel panic/);
  t.ok(performance.now() - sinceMs < PANIC_SEEN_MS);
});

t.test('the scriptlet loads the module', async (t) => {
  t.notOk((await modules()).includes('bornemisza'));
  await scriptlet('POSTIN', 1);
  t.ok((await modules()).includes('bornemisza'), 'installed');
  t.match(await labelOf('/var/lib/bornemisza/haproxy/app/haproxy.cfg'), 'bornemisza_haproxy_var_lib_t');
  for (const run of ['/run', '/var/run'])
    t.match(await labelOf(`${run}/bornemisza-haproxy/app`), 'bornemisza_haproxy_var_run_t', run);
  for (const [source, target, kind, permission] of NEEDED)
    t.not(await rules(source, target, kind, permission), '', `${source} may ${permission} ${target}:${kind}`);
  t.equal(await rules(OURS, OURS, 'process', 'execmem'), '');
});

t.test('a node of role app works, and nothing is refused', async (t) => {
  const machine = await bootOf(t, 'with');
  await startNetwork(machine);
  await t.test('init with BGP, and the start of role app', (t) => beginCluster(t, machine));
  await t.test('each process of role app is where it belongs', (t) =>
    seeDomains(t, machine, 'app', ['bornemisza-deadman', 'bornemisza-site', 'bird']),
  );
  await t.test('a reload of HAProxy', (t) => reloadHaproxy(t, machine, 'app'));
  await t.test('maintenance withdraws the floating IP', (t) => withdraw(t, machine));
  t.same(await refusals(machine), []);
  await machine.close();
});

t.test('the scriptlet keeps the module over an upgrade, and takes it away at the end', async (t) => {
  await scriptlet('POSTUN', 1);
  t.ok((await modules()).includes('bornemisza'), 'another version is there');
  await scriptlet('POSTUN', 0);
  t.notOk((await modules()).includes('bornemisza'), 'removed');
  t.notMatch(await labelOf('/var/lib/bornemisza/haproxy/app/haproxy.cfg'), 'bornemisza_haproxy_var_lib_t');
});

t.test(
  'without the module the same unit has no domain of its own, and EL refuses what it does',
  async (t) => {
    const machine = await bootOf(t, 'without');
    const unit = 'bornemisza-haproxy@app.service';
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
    } else {
      await until(async () => Number(await machine.must(`systemctl show -P NRestarts ${unit}`)) >= 2, {
        deadlineMs: SETTLE_MS,
        everyMs: 1000,
        what: 'two restarts',
      });
      t.match((await refusals(machine)).join('\n'), /haproxy/);
    }
    await machine.close();
  },
);
