import { build } from 'esbuild';
import { join } from 'node:path';
import { bundleOptions } from '../../scripts/bundle.ts';
import { inNamespace } from '../lab/namespace.ts';
import { poll } from '../lab/process.ts';
import { type Agent, exited, type Fleet, killAgent, launch, type State } from './agents.ts';
import type { Command, Figures, Said } from './member-words.ts';
import type { Segment } from './segment.ts';
import { makeStates, stateOf } from './states.ts';
import { nodeFlags } from './unit-flags.ts';

/** Those who drain take two seconds in the daemon; nobody drains here. */
const DRAIN_MS = 500;

export interface OurFleet extends Fleet {
  figures(host: number): Promise<Figures>;
  say(host: number, command: Command): void;
  /** Told of every link that a member says is up, with the time at which the benchmark heard of it. */
  readonly linked: Set<(host: number, other: number, atMs: number) => void>;
}

function hostOf(name: string): number {
  return Number(name.slice(1, name.indexOf('/')));
}

/** Our members, bundled as the daemon is, with the flags of its unit. `flags` come on top. */
export async function ourFleet(
  segment: Segment,
  directory: string,
  flags: readonly string[] = [],
): Promise<OurFleet> {
  const bundle = join(directory, 'member.mjs');
  await build({
    ...bundleOptions,
    entryPoints: [join(import.meta.dirname, 'member.ts')],
    outfile: bundle,
  });
  const hosts = Array.from({ length: segment.hosts }, (_, host) => host);
  await makeStates(
    directory,
    hosts.map((host) => segment.addressOf(host, 'ours')),
  );
  const allFlags = [...(await nodeFlags()), ...flags];
  const agents = new Map<number, Agent>();
  const latest = new Map<Agent, Figures>();
  const watchers: Fleet['watchers'] = new Set();
  const linked: OurFleet['linked'] = new Set();

  function hear(host: number, agent: Agent, line: string): void {
    const said = JSON.parse(line) as Said;
    const atMs = performance.now();
    if (said.kind === 'joining') agent.joiningMs = atMs;
    if (said.kind === 'figures') latest.set(agent, said);
    if (said.kind === 'linked') for (const heard of linked) heard(host, hostOf(said.name), atMs);
    if (said.kind !== 'saw') return;
    const about = hostOf(said.name);
    const before = agent.knows.get(about);
    const same = before?.state === said.state && before.tag === said.tag;
    const known = {
      state: said.state as State,
      tag: said.tag,
      atMs: same ? (before?.atMs ?? atMs) : atMs,
    };
    agent.knows.set(about, known);
    for (const watch of watchers) watch(host, about, known);
  }

  function agentOf(host: number): Agent {
    const agent = agents.get(host);
    if (agent === undefined) throw new Error(`no process on host ${host}`);
    return agent;
  }

  const say = (host: number, command: Command): void =>
    void agentOf(host).child.stdin?.write(`${JSON.stringify(command)}\n`);

  return {
    subject: 'bornemisza',
    agents,
    watchers,
    linked,
    say,
    async start(host) {
      const argv = [process.execPath, ...allFlags, bundle, stateOf(directory, host)];
      const agent = launch(inNamespace(segment.namespaceOf(host), argv), (own, line) =>
        hear(host, own, line),
      );
      agents.set(host, agent);
      await poll(`host ${host} to join`, () => agent.joiningMs > 0 || undefined, {
        everyMs: 2,
        timeoutMs: 30_000,
      });
    },
    async kill(host) {
      const agent = agentOf(host);
      agents.delete(host);
      await killAgent(agent);
    },
    async leave(host) {
      const agent = agentOf(host);
      const sinceMs = performance.now();
      say(host, { kind: 'leave' });
      await new Promise((resolve) => setTimeout(resolve, DRAIN_MS));
      say(host, { kind: 'departed' });
      await new Promise((resolve) => setTimeout(resolve, 200));
      say(host, { kind: 'end' });
      agents.delete(host);
      await exited(agent);
      return sinceMs;
    },
    tag: (host, value) => say(host, { kind: 'tag', value }),
    async figures(host) {
      const agent = agentOf(host);
      latest.delete(agent);
      say(host, { kind: 'figures' });
      return poll(`the figures of host ${host}`, () => latest.get(agent), { everyMs: 5 });
    },
    async close() {
      for (const [host, agent] of [...agents]) {
        agents.delete(host);
        await killAgent(agent);
      }
    },
  };
}
