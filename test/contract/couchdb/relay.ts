import { connect, createServer } from 'node:net';

/** `relay.ts PORT SOCKET=ADDRESS …`: hands what comes at a unix socket on to the address, from inside a namespace. */
const [port, ...pairs] = process.argv.slice(2);
for (const pair of pairs) {
  const [socket, host] = pair.split('=') as [string, string];
  createServer((near) => {
    const far = connect(Number(port), host);
    near.pipe(far).pipe(near);
    near.on('error', () => far.destroy());
    far.on('error', () => near.destroy());
    far.on('close', () => near.destroy());
    near.on('close', () => far.destroy());
  }).listen(socket);
}
