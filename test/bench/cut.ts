import { spawnSync } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Cluster, type Node, real } from '../integration/couchdb-cluster.ts';
import { must } from '../lab/process.ts';
import { createReport } from './report.ts';

/**
 * `bench:cut`: how long requests wait at a CouchDB whose only peer is suddenly cut off, without a word (power cut,
 * cable). On the release that LAB_COUCHDB names: the stand-in has no Erlang distribution. As root, in a network
 * namespace of its own.
 */
const { values } = parseArgs({
  options: { json: { type: 'boolean', default: false }, samples: { type: 'string', default: '5' } },
});

/** Erlang's distribution, as the clusters of the tests use it. */
const PORT = 19_100;
const CUT = `table ip cut {
  chain out {
    type filter hook output priority 0;
    tcp dport ${PORT} drop
    tcp sport ${PORT} drop
  }
}`;
/** Between two rounds of requests. */
const EVERY_MS = 150;
/** Longer than `net_ticktime`: whatever waits for the peer has ended. */
const WATCHED_MS = 20_000;

interface Answer {
  readonly askedMs: number;
  readonly answeredMs: number;
  /** HTTP status, or 0: no answer. */
  readonly status: number;
}

const kinds = {
  read: (node: Node, n: number) => node.ask('GET', `app/before-${n % 10}`, undefined, 60_000),
  written: (node: Node, n: number) => node.ask('PUT', `app/during-${n}`, { n }, 60_000),
  bulk: (node: Node, n: number) => node.ask('POST', 'app/_bulk_docs', { docs: [{ n }] }, 60_000),
  listed: (node: Node) => node.ask('GET', 'app/_all_docs?limit=10', undefined, 60_000),
};
type Kind = keyof typeof kinds;

let serial = 0;

/** One cut: the answers to what was asked before it and not answered, and to what was asked after it. */
async function cutOnce(node: Node, peer: Node): Promise<Record<Kind, Answer[]>> {
  const answers: Record<Kind, Answer[]> = { read: [], written: [], bulk: [], listed: [] };
  const open: Promise<void>[] = [];
  const ask = async (kind: Kind, n: number): Promise<void> => {
    const askedMs = performance.now();
    const status = await kinds[kind](node, n).then(
      (answer) => answer.status,
      () => 0,
    );
    answers[kind].push({ askedMs, answeredMs: performance.now(), status });
  };
  const round = (): void => {
    serial += 1;
    for (const kind of Object.keys(kinds) as Kind[]) open.push(ask(kind, serial));
  };
  round();
  const timer = setInterval(round, EVERY_MS);
  await pause(2000);
  const cutMs = performance.now();
  await must(['nft', '-f', '-'], { stdin: CUT });
  // As membership: dead to all after two seconds.
  await pause(2000);
  peer.alive = false;
  await pause(WATCHED_MS);
  clearInterval(timer);
  await Promise.all(open);
  await must(['nft', 'delete', 'table', 'ip', 'cut']);
  peer.alive = true;
  for (const kind of Object.keys(kinds) as Kind[])
    answers[kind] = answers[kind].filter(({ answeredMs }) => answeredMs > cutMs);
  return answers;
}

async function measure(): Promise<void> {
  const report = createReport('cut', values.json);
  const cluster = await Cluster.make();
  try {
    const first = await cluster.add();
    await cluster.serving([first]);
    const second = await cluster.add();
    await cluster.serving([first, second]);
    await first.ask('PUT', 'app');
    for (let n = 0; n < 10; n += 1) await first.ask('PUT', `app/before-${n}`, { n });
    const all: Record<Kind, Answer[][]> = { read: [], written: [], bulk: [], listed: [] };
    for (let sample = 0; sample < Number(values.samples); sample += 1) {
      const answers = await cutOnce(first, second);
      for (const kind of Object.keys(kinds) as Kind[]) all[kind].push(answers[kind]);
      await cluster.serving([first, second]);
    }
    for (const kind of Object.keys(kinds) as Kind[]) {
      const longest = all[kind].map((some) =>
        Math.max(...some.map(({ askedMs, answeredMs }) => answeredMs - askedMs)),
      );
      const failed = all[kind].flat().filter(({ status }) => status === 0 || status >= 400).length;
      const of = all[kind].flat().length;
      const { p99 } = report.times('silent', 2, 'bornemisza', `${kind}_longest`, longest, { failed, of });
      report.expect(p99 <= 5000, `${kind}: the longest wait was ${p99} ms, 5000 allowed`);
      report.expect(failed === 0, `${kind}: ${failed} of ${of} failed`);
    }
  } finally {
    await cluster.close();
  }
  report.end();
}

if (!real) {
  console.error('LAB_COUCHDB must name a release of CouchDB: the stand-in has no Erlang distribution.');
  process.exitCode = 2;
} else if (process.env['CUT_INSIDE'] === undefined) {
  const again = [
    '--net',
    'sh',
    '-c',
    'ip link set lo up && exec "$@"',
    'sh',
    process.execPath,
    ...process.argv.slice(1),
  ];
  const { status } = spawnSync('unshare', again, {
    stdio: 'inherit',
    env: { ...process.env, CUT_INSIDE: '1' },
  });
  process.exitCode = status ?? 1;
} else await measure();
