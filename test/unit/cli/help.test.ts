import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import t from 'tap';
import { completionScript, SHELLS } from '../../../src/cli/completion.ts';
import { leavesOf, manualPage } from '../../../src/cli/manual.ts';
import { processIo } from '../../../src/cli/process-io.ts';
import { buildProgram } from '../../../src/cli/program.ts';
import { runCli } from './captured-io.ts';
import { FakeDaemon, MEMBERS } from './fake-daemon.ts';
import { until } from '../../support/until.ts';
import { place } from './place.ts';

const program = buildProgram(processIo(async () => {}));
const leaves = leavesOf(program);

const EXPECTED = [
  'init',
  'token create',
  'token list',
  'token revoke',
  'join',
  'status',
  'top',
  'members',
  'services',
  'wait',
  'events',
  'explain',
  'ping',
  'log requests',
  'maintenance',
  'upgrade',
  'upgrade status',
  'upgrade stop',
  'upgrade resume',
  'upgrade turn',
  'leave',
  'remove',
  'authority add',
  'authority list',
  'authority rotate-root',
  'doctor',
  'debug bundle',
  'config check',
  'config show',
  'config migrate',
  'reload',
  'plan',
  'guards list',
  'guards release',
  'notify test',
  'firewall on',
  'firewall confirm',
  'firewall off',
  'firewall status',
  'certificate show',
  'certificate renew',
  'certificate revoke',
  'dns show',
  'dns adopt',
  'dns release',
  'floating show',
  'floating take',
  'accounts setup',
  'accounts list',
  'accounts show',
  'accounts disable',
  'accounts enable',
  'accounts delete',
  'web new',
  'completion',
  'daemon',
  'site',
  'version',
];

t.test('the command tree is the documented one', async (t) => {
  t.same(
    leaves.map((each) => each.path),
    EXPECTED,
  );
});

t.test('each command’s help has a usage line, an example of that command, and nothing hidden', async (t) => {
  for (const { path } of leaves) {
    const { code, out, err } = await runCli([...path.split(' '), '--help']);
    t.equal(code, 0, path);
    t.equal(err, '');
    t.match(out, `Usage: bornemisza ${path}`);
    t.match(out, new RegExp(`Examples:\n(.*\n)*.*bornemisza ${path}`), `an example of ${path}`);
    if (path !== 'site') t.notMatch(out, '--root');
  }
  for (const group of [
    'token',
    'authority',
    'config',
    'guards',
    'notify',
    'firewall',
    'certificate',
    'dns',
    'floating',
    'accounts',
    'web',
  ])
    t.equal((await runCli([group, '--help'])).code, 0);
});

t.test('the program’s help lists every command and the exit codes', async (t) => {
  const { code, out } = await runCli(['--help']);
  t.equal(code, 0);
  for (const path of EXPECTED) t.match(out, new RegExp(`^  ${path.split(' ')[0]} `, 'm'), path);
  t.notMatch(out, /^ {2}complete /m);
  t.match(out, /Exit codes:\n {2}0 {2}done\n.*\n.*\n {2}3 {2}the daemon is not running\n {2}4.*\n {2}5/);
  t.match((await runCli(['help', 'leave'])).out, 'Usage: bornemisza leave');
  t.match(await runCli(['help', 'token', 'create']), { code: 0, out: /^Usage: bornemisza token create/m });
  t.match((await runCli(['help', 'token'])).out, 'Usage: bornemisza token');
  t.match((await runCli(['help'])).out, 'Usage: bornemisza COMMAND');
  for (const words of [['nosuch'], ['token', 'nosuch'], ['leave', 'nosuch']])
    t.match(
      await runCli(['help', ...words]),
      { code: 2, err: /there is no command ".*nosuch"/ },
      words.join(' '),
    );
  t.match((await runCli(['--version'])).out, /^\d+\.\d+\.\d+\n$/);
});

t.test('the manual page is the one made from this command tree', async (t) => {
  const page = await readFile(resolve(import.meta.dirname, '../../../docs/man/bornemisza.8'), 'utf8');
  t.equal(page, manualPage(program), 'run: node scripts/man.ts');
  for (const path of EXPECTED) t.match(page, new RegExp(`^\\.Ss ${path}`, 'm'), path);
});

t.test('completion scripts are printed for each shell, and bash takes its own', async (t) => {
  for (const shell of SHELLS) {
    const { code, out } = await runCli(['completion', shell]);
    t.equal(code, 0);
    t.equal(out, completionScript(shell));
    t.match(out, 'bornemisza complete --');
  }
  const checked = spawnSync('bash', ['-n'], { input: completionScript('bash'), encoding: 'utf8' });
  t.equal(checked.status, 0, checked.stderr);
  t.equal((await runCli(['completion', 'csh'])).code, 2);
});

t.test('bash completes commands, options and choices, and runs nothing that was typed', async (t) => {
  const root = await place(t);
  const stub = `bornemisza() { printf '%s\\n' "$@" > ${root}/asked; printf 'db1/db\\t\\ndb2/db\\t\\n:4\\n'; }`;
  const typed =
    `COMP_WORDS=(bornemisza explain '$(touch ${root}/ran)' ''); COMP_CWORD=3; _bornemisza; printf '%s,' ` +
    `"\${COMPREPLY[@]}"`;
  const ran = spawnSync('bash', ['--norc', '-c', `${stub}\n${completionScript('bash')}\n${typed}`], {
    encoding: 'utf8',
  });
  t.equal(ran.stdout, 'db1/db,db2/db,');
  t.equal(await readFile(`${root}/asked`, 'utf8'), `complete\n--\nexplain\n$(touch ${root}/ran)\n\n`);
  t.rejects(readFile(`${root}/ran`), { code: 'ENOENT' });
});

t.test('candidates come from the command tree, and names of nodes from the daemon', async (t) => {
  const root = await place(t);
  const words = async (...typed: string[]): Promise<string[]> => {
    const { code, out } = await runCli(['complete', '--root', root, '--', ...typed]);
    t.equal(code, 0);
    return out
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith(':'))
      .map((line) => line.split('\t')[0] ?? '');
  };
  t.same(await words('m'), ['members', 'maintenance']);
  t.same(await words('token', ''), ['create', 'list', 'revoke']);
  t.same(await words('maintenance', 'o'), ['on', 'off']);
  t.same(await words('hel'), ['help']);
  t.same(await words('help', 'tok'), ['token']);
  t.same(await words('help', 'token', ''), ['create', 'list', 'revoke']);
  t.same(await words('help', 'authority', 'ro'), ['rotate-root']);
  t.same(await words('help', 'maintenance', ''), [], 'help takes commands alone');
  t.same(
    await words('help', ''),
    (await words('')).filter((each) => each !== 'help'),
  );
  t.ok((await words('help', '')).length > 20);
  t.same(await words('status', '--r'), ['--role']);
  t.same(await words('status', '--role', ''), ['app', 'db']);
  t.notOk((await words('')).includes('complete'));
  t.same(await words('explain', ''), [], 'no daemon, no names, no error');
  const fake = await new FakeDaemon(root, 'app', {
    'GET /v1/members': { json: { self: 'app1/app', members: MEMBERS } },
  }).start();
  t.teardown(() => fake.stop());
  // A shell does not wait long for names: on a busy machine one TAB may give none.
  const named = (...typed: string[]): Promise<string[]> =>
    until(async () => [await words(...typed)].find((found) => found.length > 0), { what: 'names at a TAB' });
  t.same(await named('explain', 'db'), ['db2/db']);
  t.same(
    await named('remove', ''),
    MEMBERS.map((each) => each.name),
  );
  const asked = fake.asked.length;
  await words('status', '');
  t.equal(fake.asked.length, asked, 'the daemon is asked only where a node is wanted');
});
