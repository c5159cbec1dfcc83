import type { Server, Socket } from 'node:net';
import type { VmArgs } from '../start/vm_args.ts';
import { Link } from './link.ts';
import { Sockets } from './tls.ts';
import { UserTimeout } from './user_timeout.ts';

/** The peer is not connected, or was lost before it answered. */
export class NodeDown extends Error {
  readonly node: string;
  constructor(node: string) {
    super(`${node} is down`);
    this.node = node;
  }
}

/** A failure with a code that the asking node can act on. */
export class Refusal extends Error {
  readonly code: string;
  constructor(code: string, message = code) {
    super(message);
    this.code = code;
  }
}

type Handler = (args: never, from: string) => unknown;
type Waiting = { node: string; resolve: (value: unknown) => void; reject: (error: Error) => void };
type Frame =
  | { id: number; op: string; args: unknown }
  | { re: number; ok: unknown }
  | { re: number; error: { code: string; message: string } };

/** A peer that drops packets is given up after this (a refused one at once). */
const connectTimeoutMs = 3000;
/** A node that could not be reached is not tried again by mere traffic before. */
const retryAfterMs = 500;
/** Two nodes that call each other at once settle which connection stays within this time. */
const crossingMs = 2000;

export type DistributionEvents = {
  nodeup: (node: string) => void;
  nodedown: (node: string, reason: string) => void;
};

/**
 * The mesh between nodes, in place of Erlang's distribution: one connection per pair, kept until it closes or
 * falls silent; calls with answers; the list of who is connected now.
 */
export class Distribution {
  readonly self: string;
  cookie: string;
  readonly #vm: VmArgs;
  readonly #sockets: Sockets;
  readonly #userTimeout: UserTimeout;
  readonly #events: DistributionEvents;
  readonly #log: (line: string) => void;
  readonly #handlers = new Map<string, Handler>();
  readonly #links = new Map<string, Link>();
  readonly #connecting = new Map<string, Promise<boolean>>();
  readonly #failedAt = new Map<string, number>();
  readonly #waiting = new Map<number, Waiting>();
  readonly #all = new Set<Link>();
  #server: Server | undefined;
  #nextId = 1;
  #closed = false;

  constructor(vm: VmArgs, cookie: string, events: DistributionEvents, log: (line: string) => void) {
    this.self = vm.name;
    this.cookie = cookie;
    this.#vm = vm;
    this.#sockets = new Sockets(vm);
    this.#userTimeout = new UserTimeout(vm.userTimeoutMs);
    this.#events = events;
    this.#log = log;
  }

  handle<A>(op: string, handler: (args: A, from: string) => unknown): void {
    this.#handlers.set(op, handler as Handler);
  }

  async listen(): Promise<void> {
    const server = this.#sockets.listen((socket) => this.#accept(socket));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#vm.distPort, this.#vm.distAddress, resolve);
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#userTimeout.close();
    for (const link of this.#all) link.close('shutdown');
    await new Promise<void>((resolve) => {
      if (this.#server === undefined) resolve();
      else this.#server.close(() => resolve());
    });
  }

  /** Names of connected nodes, this one not included, sorted. */
  nodes(): string[] {
    return [...this.#links.keys()].toSorted();
  }

  isConnected(node: string): boolean {
    return node === this.self || this.#links.has(node);
  }

  /** Connects when not connected. Never throws: a node that can't be reached is simply not up. */
  connect(node: string): Promise<boolean> {
    if (this.isConnected(node)) return Promise.resolve(true);
    const host = node.split('@')[1];
    if (host === undefined || host === '' || this.#closed) return Promise.resolve(false);
    let attempt = this.#connecting.get(node);
    if (attempt === undefined) {
      attempt = this.#dial(node, host).finally(() => this.#connecting.delete(node));
      this.#connecting.set(node, attempt);
    }
    return attempt;
  }

  /** What Erlang does when something is sent to a node that is not connected: tries, in the background. */
  nudge(node: string): void {
    const failedAt = this.#failedAt.get(node) ?? Number.NEGATIVE_INFINITY;
    if (this.isConnected(node) || performance.now() - failedAt < retryAfterMs) return;
    void this.connect(node);
  }

  /**
   * Asks a node, this one too. Waits as long as the connection stands.
   * @throws NodeDown when it is not connected or gets lost meanwhile, Refusal as the handler threw it.
   */
  async call<T>(node: string, op: string, args: unknown): Promise<T> {
    if (node === this.self) return (await this.#run(op, args, node)) as T;
    const link = this.#links.get(node);
    if (link === undefined) {
      this.nudge(node);
      throw new NodeDown(node);
    }
    const id = this.#nextId++;
    return await new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, { node, resolve: resolve as (value: unknown) => void, reject });
      link.send({ id, op, args });
    });
  }

  async #run(op: string, args: unknown, from: string): Promise<unknown> {
    const handler = this.#handlers.get(op);
    if (handler === undefined) throw new Refusal('undef', op);
    return await handler(args as never, from);
  }

  #dial(node: string, host: string): Promise<boolean> {
    return new Promise((resolve) => {
      const fail = () => {
        this.#failedAt.set(node, performance.now());
        resolve(this.isConnected(node));
      };
      const socket = this.#sockets.open(node, host, this.#vm.distPort, (ready) => {
        clearTimeout(timer);
        this.#adopt(ready, node, resolve, fail);
      });
      const timer = setTimeout(() => socket.destroy(new Error('timeout')), connectTimeoutMs).unref();
      socket.once('error', fail);
      socket.once('close', fail);
    });
  }

  #accept(socket: Socket): void {
    if (this.#closed) socket.destroy();
    else
      this.#adopt(
        socket,
        undefined,
        () => undefined,
        () => undefined,
      );
  }

  #adopt(socket: Socket, peer: string | undefined, up: (up: boolean) => void, failed: () => void): void {
    const options = { self: this.self, cookie: this.cookie, netTickTimeMs: this.#vm.netTickTimeMs };
    const link = new Link(socket, peer === undefined ? options : { ...options, peer }, {
      admit: (from) => this.#admits(from),
      up: (it) => {
        this.#enter(it);
        up(true);
      },
      down: (it, reason) => {
        this.#leave(it, reason);
        failed();
      },
      frame: (it, frame) => void this.#onFrame(it, frame as Frame),
      rejected: (from) =>
        this.#log(`Connection attempt from node ${from} rejected. Invalid challenge reply.`),
    });
    this.#all.add(link);
    this.#userTimeout.watch(socket);
  }

  /** When two nodes call each other at the same moment, the call of the greater name stays (erl_dist_protocol). */
  #admits(from: string): boolean {
    const standing = this.#links.get(from);
    const fresh = standing !== undefined && performance.now() - standing.startedAt < crossingMs;
    const crossing = standing === undefined ? this.#connecting.has(from) : fresh && standing.outbound;
    return !(crossing && this.self > from);
  }

  #enter(link: Link): void {
    const standing = this.#links.get(link.peer);
    if (standing !== undefined) {
      this.#links.delete(link.peer);
      standing.close('connection_replaced');
    }
    this.#links.set(link.peer, link);
    this.#failedAt.delete(link.peer);
    if (standing === undefined) this.#events.nodeup(link.peer);
    else {
      this.#events.nodedown(link.peer, 'connection_closed');
      this.#events.nodeup(link.peer);
    }
  }

  #leave(link: Link, reason: string): void {
    this.#all.delete(link);
    const wasCurrent = this.#links.get(link.peer) === link;
    if (wasCurrent) this.#links.delete(link.peer);
    if (link.isUp && (wasCurrent || reason === 'connection_replaced')) this.#failWaiting(link.peer);
    if (wasCurrent && !this.#closed) this.#events.nodedown(link.peer, reason);
  }

  #failWaiting(node: string): void {
    for (const [id, waiting] of this.#waiting) {
      if (waiting.node !== node) continue;
      this.#waiting.delete(id);
      waiting.reject(new NodeDown(node));
    }
  }

  async #onFrame(link: Link, frame: Frame): Promise<void> {
    if (frame === undefined || frame === null) return;
    if ('re' in frame) {
      const waiting = this.#waiting.get(frame.re);
      this.#waiting.delete(frame.re);
      if ('error' in frame) waiting?.reject(new Refusal(frame.error.code, frame.error.message));
      else waiting?.resolve(frame.ok);
      return;
    }
    try {
      const ok = (await this.#run(frame.op, frame.args, link.peer)) ?? null;
      if (this.#links.get(link.peer) === link) link.send({ re: frame.id, ok });
    } catch (error) {
      const { code = 'error', message } = error as Refusal;
      if (this.#links.get(link.peer) === link) link.send({ re: frame.id, error: { code, message } });
    }
  }
}
