/**
 * The product on a machine that enforces SELinux, by Debian's policy or by the one that LAB_SELINUX=DIRECTORY names.
 * See CONTRIBUTING.md.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { buildPackage } from '../../scripts/rpm.ts';
import type { StatusAnswer } from '../../src/daemon/control/api.ts';
import { until } from '../support/until.ts';
import { Machine, makeImage, POLICY } from './machine.ts';
import { makeNodeRoot, startNetwork } from './node-bed.ts';
import { givenPolicy, must, placeGivenPolicy, runScriptlet } from './tree.ts';

t.setTimeout(3_600_000);
/** A daemon, its programs and the command, on one slow processor. */
const SETTLE_MS = 120_000;
const OURS = 'bornemisza_haproxy_t';
/** Where the policy puts what a unit starts and it has no domain for. */
const UNCONFINED = 'unconfined_service_t';

const directory = await mkdtemp('/var/tmp/bornemisza-selinux-');
t.teardown(() => rm(directory, { recursive: true, force: true }));
const root = join(directory, 'root');
const built = await buildPackage({ out: join(directory, 'rpm'), bundle: false });
await makeNodeRoot(root, built);
await placeGivenPolicy(root);
await must('cp', ['-a', join(root, POLICY), join(directory, 'without-module')]);
await runScriptlet(root, built.selinux, 'POSTIN', 1);

async function bootOf(t: Test, name: string): Promise<Machine> {
  const image = join(directory, name);
  await makeImage(root, image);
  const machine = await Machine.boot(image);
  t.teardown(() => machine.close());
  t.equal(await machine.must('getenforce'), 'Enforcing\n');
  return machine;
}

/** What the kernel, systemd and D-Bus refused since the boot, and what had no valid context. */
async function refusals(machine: Machine): Promise<string[]> {
  const log = await machine.must('dmesg');
  // Else the first lines are gone, and refusals with them.
  if (!log.includes('SELinux:  Initializing')) throw new Error('the log of the kernel is not whole');
  return log.split('\n').filter((line) => /avc: +denied|type=1401 |seresult=denied/.test(line));
}

/** Domains of all processes of a unit. */
async function domainsOf(machine: Machine, unit: string): Promise<string[]> {
  const lines = (await machine.must('ps -eo label,unit --no-headers'))
    .split('\n')
    .map((line) => line.trim().split(/\s+/));
  const labels = lines.flatMap(([label = '', of]) => (of === unit ? [label.split(':')[2] ?? ''] : []));
  return [...new Set(labels)];
}

async function status(machine: Machine, role: string): Promise<StatusAnswer> {
  const socket = `/run/bornemisza/${role}/control.sock`;
  return JSON.parse(
    await machine.must(`curl -sS --unix-socket ${socket} http://daemon/v1/status`),
  ) as StatusAnswer;
}

const slowly = (what: string): { deadlineMs: number; everyMs: number; what: string } => ({
  deadlineMs: SETTLE_MS,
  everyMs: 2000,
  what,
});

/** Starts the daemon of a role, and waits until its HAProxy has its configuration. */
async function startRole(machine: Machine, role: string): Promise<void> {
  await machine.must(`systemctl enable --now bornemisza@${role}.service`, SETTLE_MS);
  await until(
    async () =>
      (await status(machine, role)).plugins.some(
        ({ name, state }) => name === 'haproxy' && state === 'converged',
      ),
    slowly(`HAProxy of role ${role} as it is to be`),
  );
}

async function workersOf(machine: Machine, role: string): Promise<string> {
  return machine.must(`pgrep -P $(systemctl show -P MainPID bornemisza-haproxy@${role}.service)`);
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
  const wanted = async (what: string): Promise<string> =>
    until(async () => {
      const said = await machine.must('bornemisza status --role app');
      return said.includes(what) ? said : undefined;
    }, slowly(what));
  await wanted('wanted: announce');
  await machine.must('bornemisza maintenance on --role app --force', SETTLE_MS);
  t.match(await wanted('wanted: do not announce (maintenance)'), 'in maintenance');
  await machine.must('bornemisza maintenance off --role app', SETTLE_MS);
}

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

t.test(
  'without the module the same unit has no domain of its own, and EL refuses what it does',
  async (t) => {
    await rm(join(root, POLICY), { recursive: true });
    await must('cp', ['-a', join(directory, 'without-module'), join(root, POLICY)]);
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
