import { readFile } from 'node:fs/promises';
import type { Socket } from 'node:net';

/** How often the kernel's table is read: a fifth of the shortest sensible TCP_USER_TIMEOUT. */
const lookIntervalMs = 1000;

/**
 * TCP_USER_TIMEOUT (RFC 5482) for runtimes that cannot set the socket option: closes a connection whose sent
 * bytes stay unacknowledged too long, as the kernel's own table of connections (proc_net_tcp) tells. A stopped
 * peer's kernel still acknowledges, so that it is not taken for a cut cable.
 */
export class UserTimeout {
  readonly #limitMs: number;
  readonly #watched = new Map<Socket, { acknowledged: number; since: number }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  watch(socket: Socket): void {
    if (this.#limitMs === 0) return;
    this.#watched.set(socket, { acknowledged: 0, since: performance.now() });
    socket.once('close', () => this.#watched.delete(socket));
    this.#timer ??= setInterval(() => void this.#look(), lookIntervalMs).unref();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #look(): Promise<void> {
    if (this.#watched.size === 0) return;
    const queued = unacknowledged(await readFile('/proc/self/net/tcp', 'utf8').catch(() => ''));
    const now = performance.now();
    for (const [socket, state] of this.#watched) {
      const bytes = queued.get(keyOf(socket)) ?? 0;
      const acknowledged = socket.bytesWritten - bytes;
      if (bytes === 0 || acknowledged > state.acknowledged) {
        state.acknowledged = acknowledged;
        state.since = now;
      } else if (now - state.since > this.#limitMs) socket.destroy(new Error('etimedout'));
    }
  }
}

function keyOf(socket: Socket): string {
  return `${hexOf(socket.localAddress, socket.localPort)} ${hexOf(socket.remoteAddress, socket.remotePort)}`;
}

/** `0100007F:1F90`, the address in the machine's (little endian) order. */
function hexOf(address: string | undefined, port: number | undefined): string {
  const bytes = (address ?? '').replace('::ffff:', '').split('.').map(Number).toReversed();
  const hex = (n: number, width: number) => n.toString(16).toUpperCase().padStart(width, '0');
  return `${bytes.map((b) => hex(b, 2)).join('')}:${hex(port ?? 0, 4)}`;
}

function unacknowledged(table: string): Map<string, number> {
  const out = new Map<string, number>();
  for (const line of table.split('\n').slice(1)) {
    const [, local, remote, , queues] = line.trim().split(/\s+/);
    if (local === undefined || queues === undefined) continue;
    out.set(`${local} ${remote}`, Number.parseInt(queues.split(':')[0] as string, 16));
  }
  return out;
}
