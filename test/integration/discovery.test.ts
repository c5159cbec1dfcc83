import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { runCommand } from '../../src/host/command.ts';
import { namespaceOf } from '../lab/namespace.ts';
import { claimPlace } from '../lab/place.ts';

/** What `init` finds on machines as providers make them: real devices, addresses and routes, read by the real ip(8). */
const LIMIT_MS = 60_000;

async function machine(commands: readonly string[]): Promise<string> {
  const place = await claimPlace();
  t.teardown(() => place.close());
  const name = namespaceOf(place, 'machine');
  const ip = async (line: string): Promise<void> => {
    const { code, stderr } = await runCommand('ip', line.split(' '), { timeoutMs: LIMIT_MS });
    if (code !== 0) throw new Error(`ip ${line}: ${stderr}`);
  };
  await ip(`netns add ${name}`);
  await ip(`-n ${name} link set lo up`);
  for (const device of ['eth0', 'eth1']) {
    await ip(`-n ${name} link add ${device} type veth peer name p${device}`);
    await ip(`-n ${name} link set ${device} up`);
    await ip(`-n ${name} link set p${device} up`);
  }
  for (const line of commands) await ip(`-n ${name} ${line}`);
  return name;
}

async function init(name: string, ...more: string[]): Promise<{ code: number; err: string; config: string }> {
  const root = await mkdtemp(join(tmpdir(), 'bm-disc-'));
  try {
    const program = ['src/bornemisza.ts', 'init', '--role', 'app', '--cluster', 'shop', '--host', 'app1'];
    const { code, stderr } = await runCommand(
      'ip',
      ['netns', 'exec', name, process.execPath, ...program, '--root', root, ...more],
      { timeoutMs: LIMIT_MS },
    );
    const config = await readFile(join(root, 'etc/bornemisza/app.toml'), 'utf8').catch(() => '');
    return { code, err: stderr, config };
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

const network = (address: string, net: string): string =>
  `private_address = "${address}"\nprivate_network = "${net}"\nprivate_device = "eth1"\npublic_device = "eth0"\n`;

t.test('a /32, an anchor address, a label: each is found as it is', async (t) => {
  const name = await machine([
    'addr add 203.0.113.20/20 dev eth0',
    'route add default via 203.0.113.1 dev eth0',
    'addr add 10.77.0.11/32 dev eth1',
    'route add 10.77.0.1 dev eth1',
  ]);
  const run = async (line: string): Promise<void> =>
    void (await runCommand('ip', ['-n', name, ...line.split(' ')], { timeoutMs: LIMIT_MS }));

  const alone = await init(name);
  t.equal(alone.code, 1, 'no route says which network it is');
  t.match(alone.err, /10\.77\.0\.11\/32 .*--private-network/s);
  t.equal(alone.config, '', 'and nothing was written');
  const said = await init(name, '--private-network', '10.77.0.0/24');
  t.match(said.config, network('10.77.0.11', '10.77.0.0/24'), said.err);

  await run('route add 10.77.0.0/16 via 10.77.0.1 dev eth1');
  t.match((await init(name)).config, network('10.77.0.11', '10.77.0.0/16'));

  await run('addr add 10.10.0.5/16 dev eth0');
  await run('addr add 203.0.113.21/20 dev eth0 label eth0:1');
  t.match((await init(name)).config, network('10.77.0.11', '10.77.0.0/16'), 'beside an anchor address');

  await run('addr flush dev eth1');
  const late = await init(name);
  t.match(late.err, /10\.10\.0\.5 is on eth0 beside the public address 203\.0\.113\.20/);
  t.equal(late.code, 1);

  await run('addr add 10.116.0.2/20 dev eth1 label eth1:0');
  t.match((await init(name)).config, network('10.116.0.2', '10.116.0.0/20'), 'with a label');
});
