/** A lab for people: see `usage`. */
import { spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Lab, poll, type HostSpec } from './index.ts';

const usage = `usage: node test/lab/main.ts COMMAND
  up [--app N] [--db N] [--both N] [--bundle FILE]   start a lab that stays until "down"; prints its id
  list                                               the labs of this machine and their hosts
  exec [--lab ID] HOST COMMAND…                      run a command on a host, or on "router" or "client" (network only)
  down [--lab ID]                                    take a lab away; without an id, every lab that "up" started
  sweep                                              take away labs whose owner is gone`;

const runRoot = '/run/bornemisza-lab';

type Known = { readonly id: string; readonly owner: number; readonly owned: boolean };

/** What the owner of a lab tells `up`: the lab's id, or why there is none. */
type Outcome = { readonly id: string } | { readonly error: string };

/** The owner: lives as long as the lab, in a session of its own. */
async function keep(hosts: readonly HostSpec[], bundle: string | undefined): Promise<void> {
  const tell = (outcome: Outcome): void => {
    process.send?.(outcome);
  };
  try {
    const lab = await Lab.create({ hosts, ...(bundle === undefined ? {} : { bundle }) });
    // The channel goes with the parent; the timer keeps this process until it is told to end.
    setInterval(() => {}, 2 ** 30);
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.once(signal, () => void lab.close().then(() => process.exit(0)));
    }
    tell({ id: lab.id });
  } catch (error) {
    tell({ error: (error as Error).message });
    process.disconnect();
  }
}

async function up(options: Readonly<Record<string, string | undefined>>): Promise<void> {
  const program = fileURLToPath(import.meta.url);
  const keeper = spawn(process.execPath, [program, 'keep', JSON.stringify(options)], {
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    detached: true,
  });
  const outcome = await new Promise<Outcome>((resolve) => {
    keeper.once('message', (message) => resolve(message as Outcome));
    keeper.once('exit', () => resolve({ error: 'the process that was to own the lab ended' }));
  });
  if ('error' in outcome) throw new Error(outcome.error);
  console.log(outcome.id);
  keeper.disconnect();
  keeper.unref();
}

function specs(options: Readonly<Record<string, string | undefined>>): HostSpec[] {
  const series = (name: string, count: string | undefined, roles: HostSpec['roles']): HostSpec[] =>
    Array.from({ length: Number(count ?? 0) }, (_, index) => ({ name: `${name}${index + 1}`, roles }));
  return [
    ...series('app', options['app'], ['app']),
    ...series('db', options['db'], ['db']),
    ...series('both', options['both'], ['app', 'db']),
  ];
}

async function list(): Promise<void> {
  for (const lab of await Lab.list()) {
    const hosts = await readdir(`${runRoot}/${lab.id}/hosts`).catch(() => []);
    console.log(`${lab.id}  ${lab.owned ? `owner ${lab.owner}` : 'owner gone'}  ${hosts.join(' ')}`);
  }
}

async function one(id: string | undefined): Promise<Known> {
  const labs = (await Lab.list()).filter((lab) => lab.owned && (id === undefined || lab.id === id));
  const [lab, other] = labs;
  if (lab === undefined) throw new Error(id === undefined ? 'no lab is up' : `no lab ${id} is up`);
  if (other !== undefined) throw new Error('more than one lab is up: say which with --lab');
  return lab;
}

async function exec(id: string | undefined, [host, ...argv]: readonly string[]): Promise<number> {
  if (host === undefined || argv.length === 0) throw new Error(usage);
  const lab = await one(id);
  const inside = ['router', 'client', 'fabric'].includes(host)
    ? [`--net=/run/netns/lab-${lab.id}-${host}`]
    : [`--target=${(await readFile(`${runRoot}/${lab.id}/hosts/${host}/pid`, 'utf8')).trim()}`, '--all'];
  const child = spawn('nsenter', [...inside, '--', ...argv], { stdio: 'inherit' });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => resolve(code ?? 1));
  });
}

/** Only owners that `up` started are told to end; a test's lab is its test's. */
async function down(id: string | undefined): Promise<void> {
  for (const lab of await Lab.list()) {
    if (!lab.owned || (id !== undefined && lab.id !== id)) continue;
    const command = (await readFile(`/proc/${lab.owner}/cmdline`, 'utf8').catch(() => '')).split('\0');
    if (command[1] !== fileURLToPath(import.meta.url) || command[2] !== 'keep') continue;
    process.kill(lab.owner, 'SIGTERM');
    await poll(`lab ${lab.id} to end`, async () =>
      (await Lab.list()).some((left) => left.id === lab.id) ? undefined : true,
    );
    console.log(lab.id);
  }
}

async function main(): Promise<number> {
  const [command, ...rest] = process.argv.slice(2);
  if (command === 'keep') {
    const options = JSON.parse(rest[0] ?? '{}') as Record<string, string | undefined>;
    await keep(specs(options), options['bundle']);
    return 0;
  }
  // What follows the host's name belongs to the command that runs there.
  const own = command === 'exec' ? rest.slice(0, rest[0] === '--lab' ? 2 : 0) : rest;
  const text = { type: 'string' } as const;
  const options = { app: text, db: text, both: text, bundle: text, lab: text };
  const { values } = parseArgs({ args: own, options, strict: true });
  switch (command) {
    case 'up':
      await up(values);
      return 0;
    case 'list':
      await list();
      return 0;
    case 'exec':
      return exec(values.lab, rest.slice(own.length));
    case 'down':
      await down(values.lab);
      return 0;
    case 'sweep':
      for (const id of await Lab.sweep()) console.log(id);
      return 0;
    default:
      console.error(usage);
      return 2;
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
