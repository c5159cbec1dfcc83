import type { Socket } from 'node:net';

/** The largest message: a batch of 500 documents of 100 kB with room to spare. */
const maxFrameBytes = 128 * 1024 * 1024;

/** Calls back with each message of a stream of length-prefixed JSON; a tick is a message of length 0. */
export function readFrames(socket: Socket, onFrame: (frame: unknown) => void, onTick: () => void): void {
  let chunks: Buffer[] = [];
  let have = 0;
  socket.on('data', (chunk: Buffer) => {
    onTick();
    chunks.push(chunk);
    have += chunk.length;
    while (have >= 4) {
      if ((chunks[0] as Buffer).length < 4 || chunks.length > 64) chunks = [Buffer.concat(chunks)];
      const length = (chunks[0] as Buffer).readUInt32BE(0);
      if (length > maxFrameBytes) {
        socket.destroy(new Error('frame too long'));
        return;
      }
      if (have < 4 + length) return;
      const all = chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
      chunks = all.length > 4 + length ? [all.subarray(4 + length)] : [];
      have -= 4 + length;
      if (length > 0) onFrame(parse(all.subarray(4, 4 + length)));
      if (socket.destroyed) return;
    }
  });
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}

export function writeFrame(socket: Socket, frame: unknown): void {
  const body = Buffer.from(JSON.stringify(frame));
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length, 0);
  socket.cork();
  socket.write(head);
  socket.write(body);
  socket.uncork();
}

export function writeTick(socket: Socket): void {
  socket.write(Buffer.alloc(4));
}
