import { execFile } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import { UpgradeTurn } from '../../../src/daemon/rollout/turn.ts';

const run = promisify(execFile);
const UNIT = new URL('../../../systemd/system/bornemisza-upgrade', import.meta.url).pathname;

t.test('a turn goes from asked over working to its end, by the files that both sides know', async (t) => {
  const paths = { request: join(t.testdir(), 'upgrade'), result: join(t.testdir(), 'upgraded') };
  const turn = new UpgradeTurn(paths);
  t.equal(await turn.state(), 'none');
  await turn.ask();
  t.equal(await turn.state(), 'asked');
  await writeFile(paths.result, 'working\n');
  t.equal(await turn.state(), 'asked', 'until root has taken the request away');
  await rm(paths.request);
  t.equal(await turn.state(), 'working');
  for (const [said, state] of [
    ['success', 'success'],
    ['exit-code', 'failed'],
    ['timeout', 'failed'],
    ['', 'failed'],
  ] as const) {
    await writeFile(paths.result, `${said}\n`);
    t.equal(await turn.state(), state, said);
  }
  for (const begun of ['', 'succ', 'success']) {
    await writeFile(paths.result, begun);
    t.equal(await turn.state(), 'working', `the shell has written only '${begun}'`);
  }
  await writeFile(paths.result, 'success\n');
  await turn.ask();
  t.equal(await turn.state(), 'asked', 'the end of the turn before says nothing about this one');
  await turn.withdraw();
  await turn.withdraw();
});

t.test('the units know the same files, and root does nothing else with what is the daemon’s', async (t) => {
  const path = await readFile(`${UNIT}.path`, 'utf8');
  const service = await readFile(`${UNIT}.service`, 'utf8');
  for (const role of ['app', 'db'] as const) {
    const { upgradeRequest, upgradeResult } = pathsFor(role);
    t.match(path, `PathExists=${upgradeRequest}\n`);
    t.match(service, `>${upgradeResult}'\n`);
  }
  const commands = [...service.matchAll(/^ExecStart=(.*)$/gm)].map(([, command]) => command ?? '');
  // The very commands, on files of ours, with dnf replaced by one that fails.
  const root = t.testdir();
  for (const role of ['app', 'db'] as const)
    await mkdir(join(root, 'run/bornemisza', role), { recursive: true });
  const turn = new UpgradeTurn({
    request: join(root, 'run/bornemisza/db/upgrade'),
    result: join(root, 'run/bornemisza/upgraded'),
  });
  await turn.ask();
  const here = (text: string): string => text.replaceAll('/run/', `${root}/run/`);
  const taker = join(root, 'take-request');
  await writeFile(taker, here(await readFile('systemd/take-request', 'utf8')), { mode: 0o755 });
  const [say = '', forget = '', upgrade = ''] = commands.map((each) =>
    here(each).replace('/usr/libexec/bornemisza/take-request', taker),
  );
  await run('sh', ['-c', say]);
  t.equal(await turn.state(), 'asked');
  await run('sh', ['-c', forget]);
  t.equal(await turn.state(), 'working');
  t.match(upgrade, /^\/usr\/bin\/dnf -y [^;|&$`]* upgrade bornemisza-node$/);
  t.equal(commands.length, 3);
});
