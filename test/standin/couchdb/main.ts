import { type HttpFront, listen } from './http/server.ts';
import { Node } from './node.ts';

/** Starts the node that COUCHDB_ARGS_FILE and COUCHDB_INI_FILES describe, and again whenever it is asked to restart. */
const log = (line: string) => process.stdout.write(`${new Date().toISOString()} ${line}\n`);

type Running = { node: Node; front: HttpFront };
let running: Promise<Running>;

async function start(): Promise<Running> {
  const node = new Node(process.env, log);
  await node.start();
  const front = await listen(node);
  log(`listening as ${node.distribution.self}`);
  return { node, front };
}

async function stop(): Promise<void> {
  const { node, front } = await running;
  await front.close();
  await node.stop();
}

function fail(error: unknown): never {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    stop().then(() => process.exit(0), fail);
  });
}
process.on('SIGHUP', () => {
  running = stop().then(start);
  running.catch(fail);
});
running = start();
running.catch(fail);
