import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import type { Test } from 'tap';
import { runCommand } from '../../src/host/command.ts';
import { testInNamespace } from '../support/namespace.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

/** The switch itself, without a daemon, in a namespace with a /run of its own. */
const SWITCH = join(import.meta.dirname, '../../systemd/deadman');
const DIRECTORY = '/run/bornemisza/deadman';
const PORT = 8080;

testInNamespace(
  import.meta.filename,
  ['--net', '--mount'],
  'the dead-man switch and both families of addresses',
  inside,
);

async function inside(t: Test): Promise<void> {
  const run = async (program: string, ...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runCommand(program, args, { timeoutMs: 5000 });
    if (code !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
    return stdout;
  };
  await run('mount', '-t', 'tmpfs', 'tmpfs', '/run');
  await mkdir(DIRECTORY, { recursive: true });
  await run('ip', 'link', 'set', 'lo', 'up');
  await run('ip', 'link', 'add', 'bm-float', 'type', 'ifb');
  await run('ip', 'link', 'set', 'bm-float', 'up');

  const child = spawnWithUs('bash', [SWITCH], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (said += String(chunk)));
  t.teardown(async () => {
    child.kill('SIGKILL');
    await ended;
  });

  const six = ['2001:db8::7', '2001:db8:0:1::8', '2001:db8:1:2:3:4:5:6'];
  const all = ['192.0.2.7', ...six];
  const addAll = async (): Promise<void> => {
    for (const address of all) {
      const [length, ...untested] = address.includes(':') ? ['128', 'nodad'] : ['32'];
      await run('ip', 'addr', 'replace', `${address}/${length}`, 'dev', 'bm-float', ...untested);
    }
  };
  const here = async (): Promise<string[]> => {
    const text = await run('ip', '-o', 'addr', 'show', 'dev', 'bm-float', 'scope', 'global');
    return [...text.matchAll(/inet6? (\S+)\//g)].map(([, address = '']) => address).toSorted();
  };
  /** @param age of the daemon's sign of life, seconds */
  const beat = async (age: number, ...addresses: string[]): Promise<void> => {
    const uptime = Number.parseInt(await readFile('/proc/uptime', 'utf8'), 10);
    await writeFile(
      join(DIRECTORY, 'heartbeat'),
      `${[uptime - age, 'bm-float', PORT, ...addresses].join(' ')}\n`,
    );
  };

  await t.test(
    'HAProxy and daemon silent: every address of the heartbeat is removed, and no other',
    async (t) => {
      await addAll();
      await run('ip', 'addr', 'add', '2001:db8::99/128', 'dev', 'bm-float', 'nodad');
      await beat(60, ...all);
      await until(async () => (await here()).join() === '2001:db8::99', { what: 'they are removed' });
      for (const address of all)
        t.match(said, `<2>${address}: removed from bm-float, as HAProxy missed 5 answers`);
      t.notMatch(said, /cannot/);
    },
  );

  await t.test('only IPv6, and the daemon lives or HAProxy answers on it: nothing is removed', async (t) => {
    await addAll();
    let asked = 0;
    const edge = createServer((_request, response) => {
      asked += 1;
      response.end('ok');
    });
    await new Promise<void>((resolve) => edge.listen(PORT, six[0], resolve));
    await beat(60, ...six);
    await until(() => asked >= 8, { what: 'it was asked eight times, with an old sign of life' });
    t.same((await here()).length, 5);
    edge.closeAllConnections();
    await new Promise((resolve) => edge.close(resolve));
    await until(async () => (await here()).length === 2, { what: 'HAProxy is gone too: removed' });
    t.same(await here(), ['192.0.2.7', '2001:db8::99'], 'what the heartbeat does not name stays');
  });

  await t.test('a line of another form removes nothing', async (t) => {
    await addAll();
    for (const address of ['2001:db8::g', '2001:db8::7;x', '2001:DB8::7']) {
      said = '';
      await beat(60, address);
      await until(() => said.includes('its content is not from the daemon'), { what: address });
      await beat(0);
      await until(() => said.includes('can be used again'), { what: 'and the end of it' });
    }
    t.same((await here()).length, 5);
  });
}
