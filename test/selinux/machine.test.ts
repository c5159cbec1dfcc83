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
const UNCONFINED = givenPolicy === '' ? 'initrc_t' : 'unconfined_service_t';

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
  const { output } = await machine.run(`dmesg | grep -E 'avc: +denied|type=1401 |seresult=denied'`);
  return output.split('\n').filter((line) => line !== '');
}

/** Domains of all processes of a unit. */
async function domainsOf(machine: Machine, unit: string): Promise<string[]> {
  const lines = (await machine.must('ps -eo label,unit --no-headers'))
    .split('\n')
    .map((line) => line.trim().split(/\s+/));
  const labels = lines.flatMap(([label = '', of]) => (of === unit ? [label.split(':')[2] ?? ''] : []));
  return [...new Set(labels)];
}

t.test('a node of role app serves, and nothing is refused', async (t) => {
  const machine = await bootOf(t, 'with');
  await startNetwork(machine);
  const status = async (): Promise<StatusAnswer> =>
    JSON.parse(
      await machine.must('curl -sS --unix-socket /run/bornemisza/app/control.sock http://daemon/v1/status'),
    ) as StatusAnswer;

  await t.test('init and the start of the daemon', async (t) => {
    await machine.must(
      'bornemisza init --role app --cluster lab --host both1 --private-address 10.77.0.11 ' +
        '--recovery-file /root/recovery.txt',
      SETTLE_MS,
    );
    await machine.must(`mkdir -p /srv/bornemisza/site && echo 'It works' >/srv/bornemisza/site/index.html
      cd /etc/bornemisza/services.d
      printf 'name = "site"\\nport = 8080\\npath_prefix = "/"\\nhealth_path = "/"\\n' >site.toml
      chgrp bornemisza site.toml; chmod 0640 site.toml
      systemctl enable --now bornemisza-site.service`);
    await machine.must('systemctl enable --now bornemisza@app.service', SETTLE_MS);
    await until(
      async () =>
        (await status()).plugins.some(({ name, state }) => name === 'haproxy' && state === 'converged'),
      { deadlineMs: SETTLE_MS, everyMs: 2000, what: 'HAProxy as it is to be' },
    );
    const answer = await until(
      async () => {
        const { output } = await machine.run(`curl -sSk --max-time 10 https://198.51.100.11/`);
        return output.includes('It works') ? output : undefined;
      },
      { deadlineMs: SETTLE_MS, everyMs: 2000, what: 'the site behind HAProxy' },
    );
    t.equal(answer, 'It works\n');
  });

  await t.test('each process is where it belongs', async (t) => {
    t.same(await domainsOf(machine, 'bornemisza-haproxy@app.service'), [OURS]);
    for (const name of ['bornemisza@app', 'bornemisza-deadman', 'bornemisza-site', 'bird'])
      t.same(await domainsOf(machine, `${name}.service`), [UNCONFINED], name);
  });

  await t.test('a reload of HAProxy', async (t) => {
    const workers = async (): Promise<string> =>
      machine.must('pgrep -P $(systemctl show -P MainPID bornemisza-haproxy@app.service)');
    const before = await workers();
    await machine.must('systemctl reload bornemisza-haproxy@app.service');
    await until(async () => (await workers()) !== before, {
      deadlineMs: SETTLE_MS,
      everyMs: 1000,
      what: 'a new worker',
    });
    t.same(await domainsOf(machine, 'bornemisza-haproxy@app.service'), [OURS]);
  });

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
