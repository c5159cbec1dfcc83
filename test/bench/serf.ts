import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inNamespace } from '../lab/namespace.ts';
import { poll } from '../lab/process.ts';
import { spawnWithUs } from '../support/with-us.ts';
import { type Agent, exited, type Fleet, killAgent, launch, type State } from './agents.ts';
import { Decoder, encode, type Value } from './msgpack.ts';
import type { Segment } from './segment.ts';

/**
 * Debian's Serf as it comes: LAN profile, encrypted by a keyring. What an agent knows is read from its log, where an
 * event stands before the agent coalesces it for its handlers: the earliest word that Serf gives.
 */
const STATES: Readonly<Record<string, State>> = {
  Join: 'alive',
  Update: 'alive',
  Failed: 'dead',
  Leave: 'left',
  Reap: 'left',
};

/** Our own members end when their standard input does; these need the kernel's word. */

export interface SerfFleet extends Fleet {
  /** Each host's tags as this agent holds them now, by RPC. */
  tagsSeenBy(host: number): Promise<Map<number, string | undefined>>;
}

export async function serfFleet(segment: Segment, directory: string): Promise<SerfFleet> {
  const keyring = join(directory, 'serf-keyring.json');
  await writeFile(keyring, JSON.stringify([randomBytes(32).toString('base64')]), { mode: 0o600 });
  const agents = new Map<number, Agent>();
  const calls = new Map<number, Rpc>();
  const watchers: Fleet['watchers'] = new Set();
  const wanted = new Map<number, string>();
  const leaving = new Map<Agent, number>();

  function hear(host: number, agent: Agent, line: string): void {
    const atMs = performance.now();
    if (line.includes('agent: joining:') || (line.includes('Serf agent starting') && agents.size === 1))
      agent.joiningMs = atMs;
    if (line.includes('agent: requesting graceful leave')) leaving.set(agent, atMs);
    const [, kind = '', name = ''] = /serf: EventMember(\w+): h(\d+)/.exec(line) ?? [];
    const state = STATES[kind];
    if (state === undefined) return;
    const about = Number(name);
    // The log names no tags: with one change at a time, an update is the change.
    const tag = kind === 'Update' ? wanted.get(about) : undefined;
    const known = { state, tag, atMs };
    agent.knows.set(about, known);
    for (const watch of watchers) watch(host, about, known);
  }

  function agentOf(host: number): Agent {
    const agent = agents.get(host);
    if (agent === undefined) throw new Error(`no agent on host ${host}`);
    return agent;
  }

  function rpc(host: number): Rpc {
    let call = calls.get(host);
    if (call === undefined) {
      call = new Rpc(inNamespace(segment.namespaceOf(host), ['socat', 'STDIO', 'TCP:127.0.0.1:7373']));
      calls.set(host, call);
    }
    return call;
  }

  async function gone(host: number, agent: Agent): Promise<void> {
    agents.delete(host);
    calls.get(host)?.close();
    calls.delete(host);
    leaving.delete(agent);
  }

  return {
    subject: 'serf',
    agents,
    watchers,
    async start(host) {
      const others = [...agents.keys()]
        .slice(0, 2)
        .map((other) => `-join=${segment.addressOf(other, 'serf')}`);
      const argv = [
        'serf',
        'agent',
        `-node=h${host}`,
        `-bind=${segment.addressOf(host, 'serf')}:7946`,
        `-keyring-file=${keyring}`,
        '-profile=lan',
        ...others,
      ];
      const line = (own: Agent, text: string): void => hear(host, own, text);
      const agent = launch(inNamespace(segment.namespaceOf(host), argv), line);
      agents.set(host, agent);
      await poll(`serf on host ${host} to join`, () => agent.joiningMs > 0 || undefined, {
        everyMs: 2,
        timeoutMs: 30_000,
      });
    },
    async kill(host) {
      const agent = agentOf(host);
      await gone(host, agent);
      await killAgent(agent);
    },
    async leave(host) {
      const agent = agentOf(host);
      rpc(host).send('leave');
      const sinceMs = await poll(`serf on host ${host} to leave`, () => leaving.get(agent), { everyMs: 2 });
      await exited(agent);
      await gone(host, agent);
      return sinceMs;
    },
    tag(host, value) {
      wanted.set(host, value);
      rpc(host).send('tags', { Tags: { sample: value }, DeleteTags: [] });
    },
    async tagsSeenBy(host) {
      const { Members } = (await rpc(host).ask('members')) as {
        Members: { Name: string; Tags: Record<string, string> }[];
      };
      return new Map(Members.map(({ Name, Tags }) => [Number(Name.slice(1)), Tags['sample']]));
    },
    async close() {
      for (const [host, agent] of [...agents]) {
        await gone(host, agent);
        await killAgent(agent);
      }
    },
  };
}

/** A tag is set, and was not sent to anybody within five seconds, as in a storm at 30 members: it goes out later. */
const SLOW_SPREAD = 'timeout waiting for update broadcast';

/**
 * https://github.com/hashicorp/serf, website/docs/agent/rpc: a header and a body in MessagePack each, answered in
 * order.
 */
class Rpc {
  readonly #child: ChildProcess;
  readonly #decoder = new Decoder();
  readonly #answers = new Map<number, Value | undefined>();
  readonly #withBody = new Set<number>();
  #sequence = 0;
  #header: { Seq: number; Error: string } | undefined;

  constructor(argv: readonly string[]) {
    const [program = '', ...rest] = argv;
    this.#child = spawnWithUs(program, rest, { stdio: ['pipe', 'pipe', 'ignore'] });
    this.#child.stdin?.on('error', () => undefined);
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      this.#decoder.push(chunk);
      this.#read();
    });
    this.#child.stdin?.write(
      Buffer.concat([encode({ Command: 'handshake', Seq: 0 }), encode({ Version: 1 })]),
    );
  }

  send(command: string, body?: Value): number {
    this.#sequence += 1;
    const header = encode({ Command: command, Seq: this.#sequence });
    this.#child.stdin?.write(body === undefined ? header : Buffer.concat([header, encode(body)]));
    return this.#sequence;
  }

  async ask(command: string): Promise<Value> {
    const sequence = this.send(command);
    this.#withBody.add(sequence);
    return poll(`serf's answer to ${command}`, () => this.#answers.get(sequence), {
      everyMs: 2,
      timeoutMs: 60_000,
    }).finally(() => this.#answers.delete(sequence));
  }

  close(): void {
    this.#child.kill();
  }

  #read(): void {
    for (let value = this.#decoder.next(); value !== undefined; value = this.#decoder.next()) {
      if (this.#header !== undefined) {
        this.#answers.set(this.#header.Seq, value);
        this.#header = undefined;
        continue;
      }
      const header = value as { Seq: number; Error: string };
      if (header.Error !== '' && header.Error !== SLOW_SPREAD)
        throw new Error(`serf refuses: ${header.Error}`);
      if (this.#withBody.delete(header.Seq)) this.#header = header;
    }
  }
}
