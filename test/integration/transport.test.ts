import type { ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { Admitted } from '../../src/daemon/membership/types.ts';
import { makeHost, type TestHost } from '../unit/driver/drivers.ts';
import type { Command, NodeInit, Seen } from './transport-node.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

const PROGRAM = fileURLToPath(new URL('transport-node.ts', import.meta.url));

/** One member in a process of its own, as another process sees it. */
class NodeProcess {
  readonly name: string;
  seen: Seen = { synced: false, members: {} };
  /** Every state that this node ever had another one in. */
  readonly everSaid = new Set<string>();
  /** Its code is read; it waits for {@link begin}. */
  loaded = false;
  readonly #init: NodeInit;
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;

  constructor(host: TestHost, roster: readonly Admitted[], founder: boolean) {
    this.name = host.self.name;
    this.#child = spawnWithUs(process.execPath, [PROGRAM], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdin.on('error', () => undefined);
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      this.seen = JSON.parse(line) as Seen;
      this.loaded = true;
      for (const [name, { state }] of Object.entries(this.seen.members))
        this.everSaid.add(`${name} ${state}`);
    });
    const keyPem = host.key.export({ type: 'pkcs8', format: 'pem' }).toString();
    this.#init = { keyPem, self: host.self, directory: host.directory, roster, founder };
  }

  begin(): void {
    this.#child.stdin.write(`${JSON.stringify(this.#init)}\n`);
  }

  stateOf(other: NodeProcess): string | undefined {
    return this.seen.members[other.name]?.state;
  }

  say(command: Command): void {
    this.#child.stdin.write(`${command}\n`);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async ended(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'exit');
  }
}

interface Cluster {
  readonly hosts: readonly TestHost[];
  readonly roster: readonly Admitted[];
  readonly nodes: [NodeProcess, NodeProcess, NodeProcess];
  /** A process that waits for its `begin`. */
  readonly load: (host: TestHost, founder?: boolean) => NodeProcess;
}

async function threeProcesses(t: Test): Promise<Cluster> {
  const hosts = await Promise.all(['a', 'b', 'c'].map((name) => makeHost(t, name)));
  const roster = hosts.map(({ self }) => self);
  const load = (host: TestHost, founder = false): NodeProcess => {
    const node = new NodeProcess(host, roster, founder);
    t.teardown(async () => {
      node.signal('SIGKILL');
      await node.ended();
    });
    return node;
  };
  const nodes = hosts.map((host, index) => load(host, index === 0)) as Cluster['nodes'];
  for (const node of nodes) node.begin();
  await until(() => allAlive(nodes), { what: 'all see all' });
  return { hosts, roster, nodes, load };
}

function allAlive(nodes: readonly NodeProcess[]): boolean {
  return nodes.every((node) => node.seen.synced && nodes.every((other) => node.stateOf(other) === 'alive'));
}

t.test('three members in processes of their own', async (t) => {
  const { hosts, nodes, load } = await threeProcesses(t);
  const [a, b] = nodes;
  let c = nodes[2];
  t.pass('all see all');

  // A stop of one second: nobody blames it, and it blames nobody.
  c.signal('SIGSTOP');
  await new Promise((resolve) => setTimeout(resolve, 1000));
  c.signal('SIGCONT');
  await until(() => allAlive([a, b, c]), { what: 'it is alive for all', deadlineMs: 10_000 });
  for (const node of [a, b]) t.notOk(node.everSaid.has(`${c.name} dead`), 'a second of silence is no death');
  for (const node of [a, b]) t.notOk(c.everSaid.has(`${node.name} dead`), 'nor does it blame the others');

  let startMs = performance.now();
  c.signal('SIGSTOP');
  await until(() => a.stateOf(c) === 'dead' && b.stateOf(c) === 'dead', {
    what: 'the silent one is dead',
    deadlineMs: 15_000,
  });
  t.comment(`silent: dead for all after ${Math.round(performance.now() - startMs)} ms`);
  c.signal('SIGCONT');
  await until(() => allAlive([a, b, c]), { what: 'it refutes and is back', deadlineMs: 15_000 });
  t.pass('who was only silent comes back by itself');

  const before = a.seen.members[c.name]?.incarnation ?? 0;
  startMs = performance.now();
  c.signal('SIGKILL');
  await until(() => a.stateOf(c) === 'dead' && b.stateOf(c) === 'dead', {
    what: 'the killed one is dead',
    deadlineMs: 10_000,
  });
  const tookMs = Math.round(performance.now() - startMs);
  t.comment(`killed: dead for all after ${tookMs} ms`);
  t.pass('who is killed is known to all');
  await c.ended();
  c = load(hosts[2] as TestHost);
  c.begin();
  await until(() => allAlive([a, b, c]), { what: 'alive again' });
  t.ok((a.seen.members[c.name]?.incarnation ?? 0) > before, 'it comes back with a higher incarnation');

  // The ten seconds of a restart are the daemon's own; how long a busy machine takes to read its code is not judged
  // here.
  const again = load(hosts[1] as TestHost);
  await until(() => again.loaded, { what: 'the next one is loaded' });
  b.say('goodbye restart');
  await until(() => a.seen.members[b.name]?.restarting === true, { what: 'the goodbye is heard' });
  b.say('close');
  await b.ended();
  again.begin();
  await until(() => allAlive([a, again, c]), { what: 'it is back' });
  t.notOk(a.everSaid.has(`${b.name} dead`), 'a restart is no death');

  a.everSaid.clear();
  c.say('leave');
  await until(() => a.stateOf(c) === 'leaving' && again.stateOf(c) === 'leaving', { what: 'leaving' });
  c.say('departed');
  await until(() => a.stateOf(c) === 'left' && again.stateOf(c) === 'left', { what: 'left' });
  c.say('close');
  await c.ended();
  await until(() => a.stateOf(c) === 'left' && again.stateOf(c) === 'left', { what: 'both have hung up' });
  t.notOk(a.everSaid.has(`${c.name} dead`), 'a leave is no death');
});
