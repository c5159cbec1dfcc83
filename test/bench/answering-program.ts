/**
 * The service that the benches put behind the edge. Runs in a lab's hosts as `node FILE PORT MODE`: what the file MODE
 * says decides how each request is answered, so that the moment of a fault is the moment of a write.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const [port = '', mode = ''] = process.argv.slice(2);

createServer((request, response) => {
  request.resume();
  const wanted = readFileSync(mode, 'utf8').trim();
  if (wanted === 'hang') return;
  response.writeHead(wanted === '500' ? 500 : 200, { 'content-type': 'text/plain' });
  response.end(`${wanted}\n`);
}).listen(Number(port), '127.0.0.1');
