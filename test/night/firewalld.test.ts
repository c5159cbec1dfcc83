import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { renderBase } from '../../src/plugins/firewall/rules.ts';
import {
  APP,
  BASE,
  DB,
  LIST,
  LISTENING,
  MEMBERS,
  NODE,
  PATIENCE_MS,
  STRANGER,
  base,
  end,
  inside,
  knock,
  list,
  prepare,
  replace,
  said,
  start,
  startHelper,
  talk,
  waitFor,
} from '../integration/firewall-bed.ts';
import { must } from '../lab/process.ts';
import { until } from '../support/until.ts';

/** Our table beside the founder's firewalld, which docs/install.md opens: a packet must pass both. */
t.setTimeout(900_000);
const root = join(import.meta.dirname, '../..');
const directory = await mkdtemp(join(tmpdir(), 'bm-firewalld-'));
const bus = `unix:path=${directory}/bus`;
const withBus = ['env', `DBUS_SYSTEM_BUS_ADDRESS=${bus}`];
const settings = join(directory, 'etc');
const BUS = `<busconfig><type>system</type><listen>${bus}</listen><auth>EXTERNAL</auth><policy context="default">
  <allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow user="*"/></policy></busconfig>`;
let firewalldSaid = '';

const firewallCmd = (...argv: readonly string[]): Promise<string> =>
  must(inside('node', [...withBus, 'firewall-cmd', ...argv]), { timeoutMs: PATIENCE_MS });

let firewalld: ChildProcess | undefined;

async function startFirewalld(): Promise<ChildProcess> {
  const own = ['--nofork', '--nopid', '--system-config', settings, '--log-file', join(directory, 'log')];
  const child = start(inside('node', [...withBus, 'firewalld', ...own]), (text) => {
    firewalldSaid += text;
  });
  await until(async () => (await firewallCmd('--state')).includes('running'), {
    deadlineMs: PATIENCE_MS,
    what: `firewalld: ${firewalldSaid}`,
  });
  return child;
}

t.before(async () => {
  await prepare();
  // The kernel sends one sender six rejections at once, then one a second; each is looked for here.
  await must(inside('node', ['sysctl', '-qw', 'net.ipv4.icmp_ratelimit=0']));
  await mkdir(join(settings, 'zones'), { recursive: true });
  await mkdir(join(settings, 'services'));
  await writeFile(join(directory, 'bus.conf'), BUS);
  const services = join(root, 'rpm/firewalld');
  for (const name of await readdir(services))
    await copyFile(join(services, name), join(settings, 'services', name));
  const daemon = ['dbus-daemon', '--nofork', `--config-file=${join(directory, 'bus.conf')}`];
  start(inside('node', daemon), (text) => {
    firewalldSaid += text;
  });
});
t.teardown(async () => {
  await end();
  await rm(directory, { recursive: true, force: true });
});

type Case = readonly [from: string, port: number, is: string];
const CASES: readonly Case[] = [
  ...[22, 80, 443].map((port) => ['far', port, 'open'] as const),
  ...[4101, 8443, 8404, 6984, 6985, 9999].map((port) => ['far', port, 'unreachable'] as const),
  ...[22, 4101, 8443, 8404, 6984].map((port) => [APP, port, 'open'] as const),
  ...[22, 4101, 8404, 6985].map((port) => [DB, port, 'open'] as const),
  // Ours refuses, and what ours does not know is firewalld's.
  [APP, 6985, 'refused'],
  ...[8443, 6984].map((port) => [DB, port, 'refused'] as const),
  ...[22, 4101].map((port) => [STRANGER, port, 'open'] as const),
  ...[8443, 8404, 6984, 6985].map((port) => [STRANGER, port, 'refused'] as const),
  ...[APP, DB, STRANGER].map((from) => [from, 9999, 'unreachable'] as const),
];

async function eachReaches(t: Test): Promise<void> {
  const found = await Promise.all(CASES.map(([from, port]) => knock(from, port)));
  for (const [index, [from, port, is]] of CASES.entries()) t.equal(found[index], is, `${from} to ${port}`);
  t.notMatch(said, 'was changed by another program');
}

t.test('beside firewalld, opened as docs/install.md says, each sender reaches what it needs', async (t) => {
  for (const port of LISTENING)
    await until(async () => (await knock('far', port)) === 'open', {
      deadlineMs: PATIENCE_MS,
      what: `${port}`,
    });
  firewalld = await startFirewalld();
  t.equal(await knock(APP, 8443), 'unreachable', 'firewalld alone lets nobody in');
  await firewallCmd('--permanent', '--zone=public', '--change-interface=eth0');
  await firewallCmd('--permanent', '--zone=internal', '--change-interface=eth1');
  const manual = await readFile(join(root, 'docs/install.md'), 'utf8');
  const commands = [...manual.matchAll(/^ {4}firewall-cmd ([^#\n]+)/gm)].map(([, argv = '']) => argv.trim());
  t.equal(commands.length, 4);
  for (const argv of commands) await firewallCmd(...argv.split(' '));
  startHelper();
  await replace(list, LIST);
  await replace(base, renderBase({ ...BASE, beside: true }).text);
  await waitFor(MEMBERS);
  await eachReaches(t);
});

t.test(
  'a removed node loses its open connections, although firewalld keeps those that are open',
  async (t) => {
    const door = talk(APP, 8443);
    await door.alive();
    await replace(list, `app ${NODE}\ndb ${DB}\n`);
    await door.ended();
    t.equal(await knock(APP, 8443), 'refused');
    await replace(list, LIST);
    await waitFor(MEMBERS);
  },
);

t.test('reloads of firewalld, its end and its return leave our table as it is', async (t) => {
  for (const how of ['--reload', '--complete-reload']) {
    await firewallCmd(how);
    await eachReaches(t);
  }
  const before = await must(inside('node', ['nft', 'list', 'table', 'inet', 'bornemisza']));
  if (firewalld?.pid === undefined) throw new Error('firewalld was started above');
  const over = once(firewalld, 'exit');
  process.kill(firewalld.pid, 'SIGTERM');
  await over;
  t.equal(await knock(STRANGER, 8443), 'refused', 'without firewalld, too');
  t.equal(await knock(APP, 9999), 'open', 'beside means: everything else is for the other to close');
  firewalld = await startFirewalld();
  await eachReaches(t);
  await firewallCmd('--permanent', '--zone=internal', '--remove-service=bornemisza-app');
  await firewallCmd('--reload');
  t.equal(await knock(APP, 8443), 'unreachable', 'what firewalld no longer opens is closed');
  t.equal(await must(inside('node', ['nft', 'list', 'table', 'inet', 'bornemisza'])), before);
});
