import { readFile, rm, stat } from 'node:fs/promises';
import t from 'tap';
import { renderBase } from '../../src/plugins/firewall/rules.ts';
import { must, run } from '../lab/process.ts';
import { slowness } from '../support/patience.ts';
import { until } from '../support/until.ts';
import {
  APP,
  BASE,
  DB,
  FAR6,
  LIST,
  LISTENING,
  MEMBERS,
  NEAR6,
  NODE,
  PATIENCE_MS,
  STRANGER,
  base,
  children,
  end,
  hear,
  helperScript,
  inside,
  knock,
  letIn,
  list,
  looked,
  mark,
  prepare,
  replace,
  root,
  said,
  startHelper,
  state,
  talk,
  waitFor,
} from './firewall-bed.ts';

/**
 * The helper and its rules in the kernel of one host, judged by who gets through. The host is in firewall-bed.ts.
 */
t.setTimeout(900_000);
t.before(prepare);
t.teardown(end);

t.test('without rules everything is open', async (t) => {
  for (const port of LISTENING)
    await until(async () => (await knock('far', port)) === 'open', {
      deadlineMs: PATIENCE_MS,
      what: `${port}`,
    });
  const post = inside('node', [
    'env',
    `BORNEMISZA_FIREWALL_ROOT=${root}`,
    'bash',
    helperScript,
    'first-look',
  ]);
  const first = run(post, { timeoutMs: PATIENCE_MS });
  t.not((await run(['timeout', '1', ...post])).code, 0, 'its start is not over before its first look');
  startHelper();
  t.equal((await first).code, 0);
  t.match(await readFile(state, 'utf8'), / off /);
  await until(async () => (await stat(mark).catch(() => undefined)) !== undefined, {
    deadlineMs: PATIENCE_MS,
    what: said,
  });
  t.equal(await knock('far', 9999), 'open');
});

t.test('each sender reaches what it needs, and no more', async (t) => {
  await replace(list, LIST);
  await replace(base, renderBase(BASE).text);
  await waitFor(MEMBERS);
  const cases: readonly (readonly [from: string, port: number, is: string])[] = [
    ...[22, 80, 443, 9000].map((port) => ['far', port, 'open'] as const),
    ...[4101, 8443, 8404, 6984, 6985, 9999].map((port) => ['far', port, 'silent'] as const),
    ...[22, 80, 4101, 8443, 8404, 6984].map((port) => [APP, port, 'open'] as const),
    ...[6985, 9000, 9999].map((port) => [APP, port, 'refused'] as const),
    ...[22, 4101, 8404, 6985].map((port) => [DB, port, 'open'] as const),
    ...[8443, 6984, 9999].map((port) => [DB, port, 'refused'] as const),
    ...[22, 80, 4101].map((port) => [STRANGER, port, 'open'] as const),
    ...[8443, 8404, 6984, 6985, 9999].map((port) => [STRANGER, port, 'refused'] as const),
  ];
  const found = await Promise.all(cases.map(([from, port]) => knock(from, port)));
  for (const [index, [from, port, is]] of cases.entries()) t.equal(found[index], is, `${from} to ${port}`);
});

t.test('over IPv6 neighbours are found, the site and ssh are open, and nothing else is', async (t) => {
  for (const name of ['near', 'far', 'node'] as const)
    await must(inside(name, ['ip', '-6', 'neigh', 'flush', 'all']));
  const cases: readonly (readonly [from: string, port: number, is: string])[] = [
    ...[22, 80, 443].map((port) => [FAR6, port, 'open'] as const),
    ...[4101, 8443, 8404, 6984, 6985, 9000, 9999].map((port) => [FAR6, port, 'silent'] as const),
    ...[22, 80, 443].map((port) => [NEAR6, port, 'open'] as const),
    ...[4101, 8443, 8404, 6984, 6985, 9000, 9999].map((port) => [NEAR6, port, 'refused'] as const),
  ];
  const found = await Promise.all(cases.map(([from, port]) => knock(from, port)));
  for (const [index, [from, port, is]] of cases.entries()) t.equal(found[index], is, `${from} to ${port}`);
});

t.test('ssh and own ports can be opened for IPv6 networks, too', async (t) => {
  const allow = [...BASE.allow, { protocol: 'tcp', port: 9999, from: '2001:db8:51::/48' } as const];
  const open = { ...BASE, sshFrom: ['2001:db8:51::/48', '198.51.100.0/24'], allow };
  await replace(base, renderBase(open).text);
  await until(async () => (await knock(FAR6, 9999)) === 'open', { deadlineMs: PATIENCE_MS, what: 'open' });
  const cases: readonly (readonly [from: string, port: number, is: string])[] = [
    [FAR6, 22, 'open'],
    ['far', 22, 'open'],
    [NEAR6, 22, 'refused'],
    [STRANGER, 22, 'refused'],
    ['far', 9999, 'silent'],
    [NEAR6, 9999, 'refused'],
  ];
  for (const [from, port, is] of cases) t.equal(await knock(from, port), is, `${from} to ${port}`);
  await replace(base, renderBase(BASE).text);
  await until(async () => (await knock(STRANGER, 22)) === 'open', {
    deadlineMs: PATIENCE_MS,
    what: 'as before',
  });
});

t.test('a removed address loses its open connections, and no other does', async (t) => {
  const [door, other, ssh] = [talk(APP, 8443), talk(APP, 6984), talk(APP, 22)];
  for (const link of [door, other, ssh]) await link.alive();
  const began = performance.now();
  await replace(list, `app ${NODE}\ndb ${DB}\n`);
  for (const link of [door, other]) await link.ended();
  t.comment(`cut ${Math.round(performance.now() - began)} ms after the list`);
  t.equal(await knock(APP, 8443), 'refused');
  t.ok(ssh.talks(), 'ssh is not the cluster’s to cut');
  await replace(list, LIST);
  await until(async () => (await knock(APP, 8443)) === 'open', {
    deadlineMs: PATIENCE_MS,
    what: 'let in again',
  });
});

t.test('a list that holds anything but members changes nothing', async (t) => {
  const hostile: Readonly<Record<string, string>> = {
    'a command': 'app $(touch /tmp/firewall-was-here)\n',
    'a rule': 'app 10.77.0.13 } ; flush ruleset ; #\n',
    'an address outside': `${LIST}app 8.8.8.8\n`,
    'an octet too large': 'app 10.77.0.999\n',
    'an octal octet': 'app 010.077.0.08x\n',
    'another word': 'root 10.77.0.12\n',
    'no line at all': '',
    'an empty line': '\n',
    'too many lines': 'app 10.77.0.13\n'.repeat(513),
    'a line without end': 'app 10.77.0.13'.repeat(10_000),
    'bytes of zero': 'app 10.77.0.13\0x\n',
  };
  for (const [what, text] of Object.entries(hostile)) {
    await replace(list, text);
    await looked(what);
    t.equal(await letIn(), MEMBERS, what);
  }
  t.equal(await stat('/tmp/firewall-was-here').catch(() => undefined), undefined);
  t.match(said, 'an address is outside of the private network');
  t.match(said, 'it has more than 512 lines');
});

/** As SECURITY.md says; a busy machine gets longer. */
const BACK_WITHIN_MS = 10_000;
const QUIET_MS = 2000;
/** How often the helper found other rules in the kernel. It may do so in the moment after the change. */
const restored = (): number => said.split('was changed by another program: restored').length - 1;

t.test('a table that another program removes is back within ten seconds, and no file changes', async (t) => {
  await replace(list, LIST);
  await waitFor(MEMBERS);
  for (const command of [
    ['flush', 'ruleset'],
    ['delete', 'element', 'inet', 'bornemisza', 'apps', `{ ${APP} }`],
  ]) {
    // After a change the helper reads the files once more.
    await until(async () => Date.now() - (await stat(mark)).mtimeMs > QUIET_MS, { deadlineMs: PATIENCE_MS });
    const before = restored();
    await must(inside('node', ['nft', ...command]));
    const began = performance.now();
    await until(() => restored() > before, { deadlineMs: PATIENCE_MS, what: command.join(' ') });
    const tookMs = performance.now() - began;
    await waitFor(MEMBERS);
    t.comment(`${command.join(' ')}: back after ${Math.round(tookMs)} ms`);
    t.ok(tookMs <= BACK_WITHIN_MS * slowness());
  }
});

t.test('a pipe in place of the list stops nothing, and what is flushed comes back', async (t) => {
  await rm(list);
  await must(['mkfifo', list]);
  await must(inside('node', ['nft', 'flush', 'ruleset']));
  const began = performance.now();
  await waitFor(MEMBERS);
  t.comment(`back after ${Math.round(performance.now() - began)} ms`);
  t.match(said, 'was changed by another program');
  await rm(list);
});

t.test('rules that nft refuses leave the old ones', async (t) => {
  const { text } = renderBase(BASE);
  await replace(base, text.replace('ct state invalid drop', 'ct state nonsense drop'));
  await replace(list, `app ${NODE}\n`);
  await hear('nft refuses the rules');
  t.equal(await letIn(), MEMBERS);
  await replace(base, 'not ours\n');
  await hear('is not what `bornemisza firewall on` writes');
  t.equal(await letIn(), MEMBERS);
  await replace(base, text);
  await waitFor(`apps: ${NODE}`);
});

t.test(
  'when the helper ends the rules stay, and the next one knows the members without a daemon',
  async (t) => {
    const before = children.filter(({ spawnargs }) => spawnargs.includes(helperScript));
    for (const { pid } of before) if (pid !== undefined) process.kill(-pid, 'SIGKILL');
    t.equal(await letIn(), `apps: ${NODE}`);
    await rm(list, { force: true });
    await must(inside('node', ['nft', 'flush', 'ruleset']));
    startHelper();
    await waitFor(`apps: ${NODE}`);
  },
);

t.test('without a base the table goes', async (t) => {
  await rm(base);
  await until(async () => (await knock('far', 9999)) === 'open', { deadlineMs: PATIENCE_MS, what: 'open' });
  t.equal((await run(inside('node', ['nft', 'list', 'tables']))).stdout, '');
});
