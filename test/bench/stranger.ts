import { connect, type Socket } from 'node:net';

/**
 * A stranger as a process of its own: keeps `count` sockets to one address open, each for up to a second, and opens a
 * new one for each that ends. Some say nothing, some say garbage. Arguments: own address, address, port, count.
 */
const [from = '', host = '', port = '', count = ''] = process.argv.slice(2);
const GARBAGE = Buffer.alloc(200, 0xa5);
/** New ones in one turn, so that the process itself stays able to turn. */
const PER_TURN = 250;
const open = new Set<Socket>();
let opened = 0;

function one(): void {
  const socket = connect({ host, port: Number(port), localAddress: from });
  open.add(socket);
  opened += 1;
  if (opened % 2 === 0) socket.write(GARBAGE);
  const timer = setTimeout(() => socket.destroy(), Math.random() * 1000);
  socket.on('error', () => undefined);
  socket.on('close', () => {
    clearTimeout(timer);
    open.delete(socket);
  });
  socket.resume();
}

setInterval(() => {
  for (let n = 0; n < PER_TURN && open.size < Number(count); n += 1) one();
}, 10);
setInterval(() => process.stdout.write(`${JSON.stringify({ open: open.size, opened })}\n`), 500);
