/**
 * Hands Ethernet frames between two tap devices, each frame DELAY_MS later, and by up to JITTER_MS more. Arguments: TAP
 * TAP DELAY_MS JITTER_MS.
 * Ends when standard input does.
 *
 * Node can neither open a tap nor speak datagrams on unix sockets: one socat per device turns frames into UDP datagrams
 * on this namespace's loopback and back, which keeps the frames' boundaries.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';

/** 10,000 frames of 1.5 kB are 15 MB: beyond that a wire drops, as a full queue does. */
const queueLimit = 10_000;

type Side = { readonly socket: Socket; readonly port: number; readonly tap: ChildProcess };

async function openSide(device: string): Promise<Side> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 4 * 1024 * 1024 });
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  const probe = createSocket('udp4');
  await new Promise<void>((resolve) => probe.bind(0, '127.0.0.1', resolve));
  const port = probe.address().port;
  await new Promise<void>((resolve) => probe.close(() => resolve()));
  const tap = spawn(
    'socat',
    [
      `TUN,tun-type=tap,tun-name=${device},iff-no-pi`,
      `UDP4:127.0.0.1:${socket.address().port},bind=127.0.0.1:${port},rcvbuf=4194304`,
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  return { socket, port, tap };
}

/** First in, first out, also where the waits differ: one timer for the head. */
function carry(from: Side, to: Side, delayMs: number, jitterMs: number): void {
  const queue: { readonly frame: Buffer; readonly dueMs: number }[] = [];
  let head = 0;
  let lastMs = 0;
  const deliver = (): void => {
    for (let next = queue[head]; next !== undefined; next = queue[head]) {
      const waitMs = next.dueMs - performance.now();
      // A timer may fire up to a millisecond early, and no frame may.
      if (waitMs > 0) {
        setTimeout(deliver, Math.ceil(waitMs));
        return;
      }
      to.socket.send(next.frame, to.port, '127.0.0.1');
      head += 1;
      // Under steady traffic the queue never empties: forget what was delivered now and then.
      if (head === queueLimit) head -= queue.splice(0, queueLimit).length;
    }
    queue.length = 0;
    head = 0;
  };
  from.socket.on('message', (frame) => {
    if (queue.length - head >= queueLimit) return;
    const nowMs = performance.now();
    lastMs = Math.max(lastMs, nowMs + delayMs + Math.random() * jitterMs);
    queue.push({ frame, dueMs: lastMs });
    if (queue.length - head === 1) setTimeout(deliver, lastMs - nowMs);
  });
}

const [inner = '', outer = '', delay = '', jitter = ''] = process.argv.slice(2);
const sides = [await openSide(inner), await openSide(outer)] as const;
carry(sides[0], sides[1], Number(delay), Number(jitter));
carry(sides[1], sides[0], Number(delay), Number(jitter));
const end = (code: number): void => {
  for (const side of sides) side.tap.kill('SIGKILL');
  process.exit(code);
};
for (const side of sides) side.tap.on('exit', () => end(1));
process.stdin.on('end', () => end(0)).on('error', () => end(0));
process.stdin.resume();
