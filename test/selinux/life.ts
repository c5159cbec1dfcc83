/** The work of a node in both roles, step by step, as its operator does it. */
import type { Test } from 'tap';
import type { FirewallStatus } from '../../src/cli/firewall/status.ts';
import type { UpgradeAnswer } from '../../src/daemon/control/api.ts';
import { until } from '../support/until.ts';
import type { Machine } from './machine.ts';
import { domainsOf, SETTLE_MS, slowly, startedIn, startRole, status, workersOf } from './product.ts';
import { givenPolicy } from './tree.ts';

export const OURS = 'bornemisza_haproxy_t';
/** Where the policy puts what a unit starts and it has no domain for. */
export const UNCONFINED = 'unconfined_service_t';
/** Programs that a unit starts for a moment, and where. Debian's policy has no label for dnf, and other names. */
const STARTED: readonly (readonly [path: string, domain: string])[] = [
  // The first configuration of each HAProxy.
  ['/usr/bin/cp', givenPolicy === '' ? 'initrc_t' : UNCONFINED],
  // Of the daemons.
  ['/usr/bin/ip', UNCONFINED],
  ['/usr/sbin/haproxy', UNCONFINED],
  // A restart of CouchDB on request; an upgrade has the first one, too.
  ['/usr/libexec/bornemisza/take-request', UNCONFINED],
  ['/usr/bin/systemctl', givenPolicy === '' ? 'initrc_t' : 'init_t'],
  // An upgrade: its shell, and dnf.
  ['/usr/bin/dash', 'initrc_t'],
  ['/usr/bin/dnf-3', givenPolicy === '' ? 'initrc_t' : 'rpm_t'],
];
const FLOATING = '203.0.113.10';

/** Runs what sets a node up. */
type SetUp = (t: Test, machine: Machine, script: string) => Promise<void>;

export async function inLogin(t: Test, machine: Machine, script: string): Promise<void> {
  const said = await machine.must(`set -e\nid -Z\n${script}`, SETTLE_MS);
  t.match(said, ':unconfined_t:');
}

/** As cloud-init does; the policy must have a domain for it, as EL's has. */
export async function byCloudInit(t: Test, machine: Machine, script: string): Promise<void> {
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

/** What curl prints, as soon as it prints that. */
async function answered(t: Test, machine: Machine, request: string, wanted: string): Promise<void> {
  const got = await until(async () => {
    const { output } = await machine.run(`curl -sSk --max-time 10 ${request}`);
    return output.includes(wanted) ? output : undefined;
  }, slowly(request));
  t.match(got, wanted);
}

export async function beginCluster(t: Test, machine: Machine, setUp: SetUp): Promise<void> {
  await machine.must(`mkdir -p /srv/bornemisza/site && echo 'It works' >/srv/bornemisza/site/index.html
      cd /etc/bornemisza/services.d
      printf 'name = "site"\\nport = 8080\\npath_prefix = "/"\\nhealth_path = "/"\\n' >site.toml
      chgrp bornemisza site.toml; chmod 0640 site.toml
      systemctl enable --now bornemisza-site.service`);
  await setUp(
    t,
    machine,
    'bornemisza init --role app --cluster lab --host both1 --private-address 10.77.0.11 ' +
      `--floating-ip ${FLOATING} --floating-mode bgp --bgp-neighbor 169.254.169.254 --bgp-as 64515 ` +
      '--bgp-local-as 65001 --recovery-file /root/recovery.txt --start',
  );
  await startRole(machine, 'app');
  await answered(t, machine, 'https://198.51.100.11/', 'It works\n');
}

/** The databases of this machine, as the services on it reach them: through both HAProxies. */
export async function joinDatabase(t: Test, machine: Machine, setUp: SetUp): Promise<void> {
  await machine.must(
    `bornemisza token create --role db --json | sed -n 's/.*"token": *"\\([^"]*\\)".*/\\1/p' >/run/bornemisza-token
      test -s /run/bornemisza-token`,
  );
  await setUp(
    t,
    machine,
    'bornemisza join --token-file /run/bornemisza-token --host both1 --private-address 10.77.0.11 --start',
  );
  await startRole(machine, 'db');
  await answered(t, machine, '-o /dev/null -w "%{http_code}" http://127.0.0.1:5984/_up', '200');
  // Its unit goes on when systemctl fails, so its own result says nothing.
  const restarted = await until(async () => {
    const asked = await timeOf(machine, 'InactiveExit', 'bornemisza-couchdb-restart.service');
    return asked > 0 && (await timeOf(machine, 'ExecMainStart', 'couchdb.service')) > asked;
  }, slowly('a restart of CouchDB on request'));
  t.ok(restarted);
}

/** Microseconds since the boot; 0: never. */
async function timeOf(machine: Machine, property: string, unit: string): Promise<number> {
  return Number(await machine.must(`systemctl show -P ${property}TimestampMonotonic ${unit}`));
}

/** A server that takes every mail. */
const MAIL_SERVER = `
const server = require('node:net').createServer((socket) => {
  socket.write('220 lab\\r\\n');
  let text = false;
  require('node:readline').createInterface({ input: socket }).on('line', (line) => {
    if (text && line !== '.') return;
    const starts = /^DATA/i.test(line);
    socket.write(starts ? '354 go on\\r\\n' : /^QUIT/i.test(line) ? '221 bye\\r\\n' : '250 ok\\r\\n');
    text = starts;
  });
  socket.on('error', () => {});
});
server.listen(2525, '127.0.0.1');
`;

/** What no option says: this server speaks no TLS. */
const MAIL_SETTINGS = `public_url = "https://198.51.100.11"
site_name = "Notes"
[mail]
from = "notes@lab.example"
smtp_url = "smtp://127.0.0.1:2525"
smtp_tls = "off"
`;

/** The page of the app tier takes the place of the static site. */
export async function setUpAppTier(t: Test, machine: Machine, setUp: SetUp): Promise<void> {
  const server = Buffer.from(MAIL_SERVER).toString('base64');
  const settings = Buffer.from(MAIL_SETTINGS).toString('base64');
  await machine.must(`echo ${server} | base64 -d >/root/mail.cjs
      echo ${settings} | base64 -d >/root/accounts.toml
      systemd-run --quiet --unit=mail /usr/libexec/bornemisza/node /root/mail.cjs
      rm /etc/bornemisza/services.d/site.toml`);
  await setUp(
    t,
    machine,
    'bornemisza accounts setup --from /root/accounts.toml --test-to anna@lab.example --json',
  );
  await answered(t, machine, 'https://198.51.100.11/api/health', '{');
  t.same(await domainsOf(machine, 'bornemisza-app.service'), [UNCONFINED]);
  const register = `-X POST -H 'content-type: application/json' -d '{"email":"anna@lab.example"}'`;
  const code = '-o /dev/null -w "%{http_code}"';
  await answered(t, machine, `${code} ${register} https://198.51.100.11/api/registrations`, '202');
}

export async function reloadHaproxy(t: Test, machine: Machine, role: string): Promise<void> {
  const before = await workersOf(machine, role);
  await machine.must(`systemctl reload bornemisza-haproxy@${role}.service`);
  await until(async () => (await workersOf(machine, role)) !== before, slowly('a new worker'));
  t.same(await domainsOf(machine, `bornemisza-haproxy@${role}.service`), [OURS]);
}

export async function seeDomains(t: Test, machine: Machine): Promise<void> {
  for (const role of ['app', 'db'])
    t.same(await domainsOf(machine, `bornemisza-haproxy@${role}.service`), [OURS], role);
  for (const name of [
    'bornemisza@app',
    'bornemisza@db',
    'bornemisza-deadman',
    'bornemisza-unit-watch',
    'bornemisza-site',
    'bird',
    'couchdb',
  ])
    t.same(await domainsOf(machine, `${name}.service`), [UNCONFINED], name);
  const { output } = await machine.run('id -Z; bornemisza doctor --json', SETTLE_MS);
  t.match(output, ':unconfined_t:');
  t.match(output, '"ok"', 'doctor ran');
}

/** Debian's User-Mode Linux has nf_tables, but neither family ip nor inet. */
export async function hasNftables(machine: Machine): Promise<boolean> {
  return (await machine.run('nft add table inet lab && nft delete table inet lab')).code === 0;
}

/** The rules come on trial, are kept, and go; then a trial that nobody confirms. */
export async function useFirewall(t: Test, machine: Machine): Promise<void> {
  const seen = async (): Promise<FirewallStatus> =>
    JSON.parse(await machine.must('bornemisza firewall status --json')) as FirewallStatus;
  // For sshd, which is asked for its ports.
  await machine.must('ssh-keygen -A && mkdir -p /run/sshd');
  await machine.must('bornemisza firewall on', SETTLE_MS);
  t.same(await domainsOf(machine, 'bornemisza-firewall.service'), [UNCONFINED]);
  t.equal((await seen()).state, 'trial');
  await machine.must('bornemisza firewall confirm');
  const kept = await until(async () => {
    const found = await seen();
    return found.apps.length > 0 && found.dbs.length > 0 ? found : undefined;
  }, slowly('the members in the sets of the firewall'));
  t.match(kept, { state: 'on', apps: ['10.77.0.11'], dbs: ['10.77.0.11'] });
  await answered(t, machine, 'https://198.51.100.11/api/health', '{');
  t.ok((await startedIn(machine, '/usr/sbin/nft')).includes(UNCONFINED), 'nft of the helper');
  await machine.must('bornemisza firewall off');
  t.equal((await seen()).state, 'off');
  await machine.must('bornemisza firewall on --within 10', SETTLE_MS);
  await until(async () => (await seen()).state === 'off', slowly('the end of the trial'));
}

/** Whatever ran too short for `ps`. */
export async function seeStarted(t: Test, machine: Machine): Promise<void> {
  for (const [path, domain] of STARTED) t.ok((await startedIn(machine, path)).includes(domain), path);
}

/** The address stays on the device; its route is taken from BIRD. */
export async function withdraw(t: Test, machine: Machine): Promise<void> {
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

/** HAProxy and the daemon hang; the switch takes the floating IP off. */
export async function useDeadman(t: Test, machine: Machine): Promise<void> {
  const address = async (is: boolean): Promise<boolean> =>
    until(
      async () => (await machine.must('ip -4 -o addr show')).includes(`${FLOATING}/32`) === is,
      slowly(`the floating IP ${is ? 'on this machine' : 'taken off'}`),
    );
  const signal = (name: string): Promise<string> =>
    machine.must(`systemctl kill --signal=${name} bornemisza@app.service bornemisza-haproxy@app.service`);
  await address(true);
  await signal('STOP');
  t.ok(await address(false));
  await signal('CONT');
  t.ok(await address(true));
}

/** A rollout that finds the newest package installed already: root's unit runs dnf, and says so to the daemon. */
export async function requestUpgrade(t: Test, machine: Machine): Promise<void> {
  // Refused while a node is not healthy, as after the dead-man switch.
  await until(
    async () => (await machine.run('bornemisza upgrade --scheduled', SETTLE_MS)).code === 0,
    slowly('a rollout begun'),
  );
  const result = await until(async () => {
    const { code, output } = await machine.run('cat /run/bornemisza/upgraded');
    return code === 0 && output.endsWith('\n') && output !== 'working\n' ? output : undefined;
  }, slowly('the upgrade'));
  t.equal(result, 'success\n');
  const rollout = async (): Promise<UpgradeAnswer> =>
    JSON.parse(
      await machine.must(`curl -sS --unix-socket /run/bornemisza/app/control.sock http://daemon/v1/upgrade`),
    ) as UpgradeAnswer;
  await until(async () => (await rollout()).state !== 'running', slowly('the end of the rollout'));
  const { state, why } = await rollout();
  t.equal(state, 'finished', why);
}

/** Role app leaves, with all that it had on this machine; the databases stay. */
export async function leave(t: Test, machine: Machine): Promise<void> {
  // On a busy machine BIRD confirms too late that the route is withdrawn; the command then says to run it again.
  await until(
    async () => (await machine.run('bornemisza leave --role app --force --wipe', SETTLE_MS)).code === 0,
    slowly('the leave of role app'),
  );
  for (const unit of ['bornemisza@app', 'bornemisza-haproxy@app', 'bornemisza-app'])
    t.not((await machine.run(`systemctl is-active ${unit}.service`)).output, 'active\n', unit);
  t.not((await machine.run('test -e /etc/bornemisza/app.toml')).code, 0);
}
