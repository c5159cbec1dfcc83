import { join } from 'node:path';
import t from 'tap';
import type { StatusAnswer } from '../../src/daemon/control/api.ts';
import { Cluster } from '../lab/cluster.ts';
import type { Host } from '../lab/index.ts';
import { until } from '../support/until.ts';
import { PATIENCE_MS } from './cluster-bed.ts';

/**
 * The firewall of a node, judged by who gets through to it: real nftables, sshd and systemd, the daemons' own lists.
 */
t.setTimeout(600_000);

const STRANGER = '10.77.0.99';
// The client shares this machine's files; the host has its own.
const KEY = join(t.testdir(), 'key');
let cluster: Cluster;
let app1: Host;
let app2: Host;

type Run = (argv: readonly string[], options?: { timeoutMs?: number }) => ReturnType<Host['exec']>;

/** How a new TCP connection ends, from where `run` runs. */
async function knock(run: Run, address: string, port: number, from?: string): Promise<string> {
  const bind = from === undefined ? '' : `,bind=${from}`;
  const target = `TCP:${address}:${port},connect-timeout=1${bind}`;
  const { code, stderr } = await run(['socat', '-u', '/dev/null', target], { timeoutMs: 15_000 });
  if (code === 0) return 'open';
  return /refused/.test(stderr) ? 'refused' : /timed out|Connection timed/i.test(stderr) ? 'silent' : stderr;
}

const internet: Run = (argv, options) => cluster.lab.client.exec(argv, options);
const neighbour: Run = (argv, options) => app2.exec(argv, options);

/** A command on app1 over a new ssh connection from the internet. */
function overSsh(...argv: readonly string[]): ReturnType<Host['exec']> {
  const options = [
    'BatchMode=yes',
    'StrictHostKeyChecking=no',
    'UserKnownHostsFile=/dev/null',
    'LogLevel=ERROR',
  ];
  return cluster.lab.client.exec(
    ['ssh', '-i', KEY, ...options.flatMap((each) => ['-o', each]), `root@${app1.publicAddress}`, ...argv],
    { timeoutMs: PATIENCE_MS },
  );
}

const table = async (): Promise<string | undefined> => {
  const { code, stdout } = await app1.exec(['nft', 'list', 'table', 'inet', 'bornemisza']);
  return code === 0 ? stdout : undefined;
};
const letIn = async (): Promise<string[]> =>
  [...((await table()) ?? '').matchAll(/elements = \{([^}]*)\}/g)].flatMap(([, text = '']) =>
    text.split(',').map((each) => each.trim()),
  );

t.before(async () => {
  cluster = await Cluster.create({ app: 2, floating: false });
  [app1, app2] = [cluster.instance('app1').host, cluster.instance('app2').host];
  await app2.must(['ip', 'addr', 'add', `${STRANGER}/24`, 'dev', 'eth1']);
  await app1.must(['systemd-run', '--unit=founders', 'socat', 'TCP-LISTEN:9999,fork,reuseaddr', 'EXEC:cat']);
  await cluster.lab.client.exec(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', KEY]);
  const { stdout } = await cluster.lab.client.exec(['cat', `${KEY}.pub`]);
  await app1.must(
    ['sh', '-c', 'mkdir -p /root/.ssh /run/sshd; chmod 700 /root/.ssh; cat >/root/.ssh/authorized_keys'],
    { stdin: stdout },
  );
  await app1.must(['ssh-keygen', '-A']);
  await app1.must(['systemctl', 'restart', 'ssh.service']);
  await cluster.settled(PATIENCE_MS, cluster.instances);
});
t.teardown(async () => {
  await cluster?.close();
});

t.test('off, everything is open, and the daemon has already listed the members', async (t) => {
  t.equal(await knock(internet, app1.publicAddress, 9999), 'open');
  t.equal(await knock(neighbour, app1.privateAddress, 8443, STRANGER), 'open');
  t.equal(await app1.readFile('/run/bornemisza/app/firewall'), 'app 10.77.0.11\napp 10.77.0.12\n');
});

t.test('a rule set that nobody confirms is removed', async (t) => {
  const { code, stdout, stderr } = await overSsh('bornemisza', 'firewall', 'on', '--within', '10');
  t.equal(code, 0, stderr);
  t.match(stdout, 'tcp 22 (ssh): anywhere');
  t.ok(await table());
  await until(async () => (await table()) === undefined, {
    deadlineMs: PATIENCE_MS,
    everyMs: 200,
    what: 'no table',
  });
  t.equal(await knock(internet, app1.publicAddress, 9999), 'open');
  t.match((await overSsh('bornemisza', 'firewall', 'confirm')).stderr, 'there is nothing to confirm');
});

t.test('only a new ssh connection confirms', async (t) => {
  const same = await overSsh('bornemisza firewall on >/dev/null && bornemisza firewall confirm');
  t.match(same.stderr, 'the ssh connection of this shell is older than the rules');
  t.equal(same.code, 5);
  const other = await overSsh('bornemisza', 'firewall', 'confirm');
  t.equal(other.code, 0, other.stderr);
  t.match(await app1.must(['systemctl', 'is-enabled', 'bornemisza-firewall.service']), 'enabled');
  t.strictSame(await letIn(), ['10.77.0.11', '10.77.0.12']);
  t.equal(await knock(internet, app1.publicAddress, 9999), 'silent');
  t.equal(await knock(neighbour, app1.privateAddress, 8443, STRANGER), 'refused');
  // The daemon finds at its next look that the firewall is on, and reads what the helper says.
  const seen = async (): Promise<string> => {
    const status = JSON.parse(await app1.must(['bornemisza', 'status', '--json'])) as StatusAnswer;
    const { state, seen: said } = status.plugins.find(({ name }) => name === 'firewall') ?? {};
    return `${state}: ${said}`;
  };
  const wanted = 'converged: on: 2 members allowed';
  await until(async () => (await seen()) === wanted || Promise.reject(new Error(await seen())), {
    deadlineMs: PATIENCE_MS,
    everyMs: 500,
    what: wanted,
  });
});

t.test('from boot on it is closed, before any daemon runs', async (t) => {
  await app1.disable('bornemisza@app.service');
  await app1.reboot();
  t.not((await app1.unit('bornemisza@app.service')).active, 'active');
  t.strictSame(await letIn(), ['10.77.0.11', '10.77.0.12'], 'the members of before');
  const since = async (unit: string): Promise<number> =>
    Number(await app1.must(['systemctl', 'show', '--value', '-p', 'ActiveEnterTimestampMonotonic', unit]));
  const [closedUs, networkUs] = [
    await since('bornemisza-firewall.service'),
    await since('network-pre.target'),
  ];
  t.ok(
    closedUs > 0 && closedUs <= networkUs,
    `closed at ${closedUs} µs, the network may begin at ${networkUs}`,
  );
  await app1.enable('bornemisza@app.service');
  await cluster.settled(PATIENCE_MS, cluster.instances);
});

t.test('removing a node cuts what it has open', async (t) => {
  // An echo in place of HAProxy, so that nothing but the firewall can end the link.
  await app1.mask('bornemisza-haproxy@app.service');
  await app1.stop('bornemisza-haproxy@app.service');
  await app1.must(['systemd-run', '--unit=echo', 'socat', 'TCP-LISTEN:8443,fork,reuseaddr', 'EXEC:cat']);
  await until(async () => (await knock(neighbour, app1.privateAddress, 8443)) === 'open', {
    what: 'the echo',
  });
  const talk = `exec 3<>/dev/tcp/${app1.privateAddress}/8443; echo x >&3; read -t 5 -u 3 || exit 9; touch /run/talks
    while echo x >&3 && read -t 5 -u 3; do read -t 0.05 <> <(:); done 2>/dev/null; exit 0`;
  const ended = app2.exec(['bash', '-c', talk], { timeoutMs: PATIENCE_MS });
  await until(async () => (await app2.exec(['test', '-e', '/run/talks'])).code === 0, { what: 'the link' });
  await cluster.command(cluster.instance('app1'), ['remove', 'app2/app', '--force']);
  const began = performance.now();
  t.equal((await ended).code, 0, 'the link was up, and ended');
  t.comment(`cut ${Math.round(performance.now() - began)} ms after the command`);
  t.equal(await knock(neighbour, app1.privateAddress, 8443), 'refused');
  t.strictSame(await letIn(), ['10.77.0.11']);
});

t.test('off is off', async (t) => {
  await app1.must(['bornemisza', 'firewall', 'off']);
  t.equal(await table(), undefined);
  t.equal(
    await knock(internet, app1.publicAddress, 9999),
    'refused',
    'nobody listens there since the reboot',
  );
  t.match(await app1.must(['bornemisza', 'firewall', 'status']), 'off: every port is open');
});
