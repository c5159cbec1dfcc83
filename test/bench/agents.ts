import type { ChildProcess } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { poll } from '../lab/process.ts';
import { spawnWithUs } from '../support/with-us.ts';

/** What one member holds of another: Serf's `failed` is `dead` here. */
export type State = 'alive' | 'suspect' | 'dead' | 'leaving' | 'left';
export interface Known {
  readonly state: State;
  readonly tag: string | undefined;
  /** When the benchmark heard of it (ms, `performance.now`). */
  readonly atMs: number;
}

/** One running process of a subject, and what it has said of the others. */
export interface Agent {
  readonly child: ChildProcess;
  readonly pid: number;
  /** By host. */
  readonly knows: Map<number, Known>;
  /** When it said that it begins to join. */
  joiningMs: number;
}

/** A membership program under test: one process a host, all at once. */
export interface Fleet {
  readonly subject: 'bornemisza' | 'serf';
  readonly agents: ReadonlyMap<number, Agent>;
  /** Told of every word an agent says about a member. */
  readonly watchers: Set<(observer: number, about: number, known: Known) => void>;
  start(host: number): Promise<void>;
  /** SIGKILL; resolves when the process is gone. */
  kill(host: number): Promise<void>;
  /** Graceful; resolves when the process has ended. @returns when the node itself said that it goes */
  leave(host: number): Promise<number>;
  /** Resolves when the request is out. */
  tag(host: number, value: string): void;
  close(): Promise<void>;
}

export type Line = (agent: Agent, line: string) => void;

/** Starts a program whose standard output is read line by line. Its death is noticed by `exited`. */
export function launch(argv: readonly string[], onLine: Line): Agent {
  const [program = '', ...rest] = argv;
  const child = spawnWithUs(program, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
  if (child.pid === undefined) throw new Error(`${program} cannot be started`);
  const agent: Agent = { child, pid: child.pid, knows: new Map(), joiningMs: Number.NaN };
  // A process that is killed does not read what we still say to it.
  child.stdin.on('error', () => undefined);
  createInterface({ input: child.stdout }).on('line', (line) => onLine(agent, line));
  return agent;
}

export async function exited(agent: Agent): Promise<void> {
  await poll(
    `process ${agent.pid} to end`,
    () => (agent.child.exitCode ?? agent.child.signalCode) !== null || undefined,
    { everyMs: 5, timeoutMs: 20_000 },
  );
}

export async function killAgent(agent: Agent): Promise<void> {
  agent.child.kill('SIGKILL');
  await exited(agent);
}

/** CPU time used so far, all threads: proc_pid_stat(5), fields 14 and 15, in clock ticks of 10 ms. */
export async function cpuMs(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

export async function rssMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
}
