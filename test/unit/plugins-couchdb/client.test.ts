import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import {
  AccountLocked,
  CouchDbAnswer,
  CouchDbClient,
  PasswordRefused,
} from '../../../src/plugins/couchdb/client.ts';
import { until } from '../../support/until.ts';

type Answer = (request: IncomingMessage) => { status: number; body: unknown } | 'silence';

async function serve(
  answer: Answer,
): Promise<{ server: Server; baseUrl: string; requests: IncomingMessage[] }> {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    const found = answer(request);
    if (found === 'silence') return;
    response.writeHead(found.status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(found.body));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

const signal = new AbortController().signal;

t.test('after one 401 nothing is asked with that password', async (t) => {
  const { server, baseUrl, requests } = await serve((request) =>
    request.headers.authorization === `Basic ${Buffer.from('admin:right').toString('base64')}`
      ? { status: 200, body: { couchdb: 'Welcome' } }
      : { status: 401, body: { error: 'unauthorized', reason: 'Name or password is incorrect.' } },
  );
  t.teardown(() => server.close());
  let password = 'wrong';
  const client = new CouchDbClient({ baseUrl, credentials: () => ({ name: 'admin', password }) });
  for (let turn = 0; turn < 10; turn += 1) await t.rejects(client.get('', signal), PasswordRefused);
  t.equal(requests.length, 1);
  password = 'right';
  t.match(await client.get('', signal), { couchdb: 'Welcome' });
  password = 'wrong';
  client.forgetRefusal();
  await t.rejects(client.get('', signal), PasswordRefused);
  t.equal(requests.length, 3, 'a restart of the server allows one more try');
});

t.test('a locked account is not asked for at once again', async (t) => {
  const { server, baseUrl, requests } = await serve(() => ({
    status: 403,
    body: {
      error: 'forbidden',
      reason: 'Account is temporarily locked due to multiple authentication failures',
    },
  }));
  t.teardown(() => server.close());
  const client = new CouchDbClient({ baseUrl, credentials: () => ({ name: 'admin', password: 'any' }) });
  await t.rejects(client.get('_membership', signal), AccountLocked);
  await t.rejects(client.get('_membership', signal), AccountLocked);
  t.equal(requests.length, 1);
});

t.test('a locked account is asked for again after a while, and works when the lock has ended', async (t) => {
  let locked = true;
  const { server, baseUrl, requests } = await serve(() =>
    locked
      ? { status: 403, body: { error: 'forbidden', reason: 'Account is temporarily locked due to failures' } }
      : { status: 200, body: { couchdb: 'Welcome' } },
  );
  t.teardown(() => server.close());
  const credentials = () => ({ name: 'admin', password: 'right' });
  const client = new CouchDbClient({ baseUrl, credentials, lockAskedAgainMs: 50 });
  await t.rejects(client.get('', signal), AccountLocked);
  locked = false;
  await until(async () => {
    try {
      return (await client.get<{ couchdb: string }>('', signal)).couchdb === 'Welcome';
    } catch (error) {
      if (error instanceof AccountLocked) return false;
      throw error;
    }
  });
  t.equal(requests.length, 2, 'nothing is asked in between');
});

t.test('_up is asked without a password', async (t) => {
  const { server, baseUrl, requests } = await serve(() => ({
    status: 404,
    body: { status: 'maintenance_mode' },
  }));
  t.teardown(() => server.close());
  const client = new CouchDbClient({ baseUrl, credentials: () => ({ name: 'admin', password: 'secret' }) });
  t.equal(await client.up(signal), 'maintenance');
  t.equal(requests[0]?.headers.authorization, undefined);
});

t.test('nobody there: down; somebody who does not answer: silent', async (t) => {
  const listening = await serve(() => 'silence');
  const ask = ({ baseUrl }: { readonly baseUrl: string }) =>
    new CouchDbClient({
      baseUrl,
      credentials: () => ({ name: 'admin', password: 'secret' }),
      readTimeoutMs: 50,
    }).up(signal);
  t.equal(await ask(listening), 'silent');
  listening.server.closeAllConnections();
  await new Promise((resolve) => listening.server.close(resolve));
  t.equal(await ask(listening), 'down');

  const resetting = await serve((request) => {
    request.socket.resetAndDestroy();
    return 'silence';
  });
  t.teardown(() => resetting.server.close());
  t.equal(await ask(resetting), 'silent', 'a connection that is cut says nothing');
});

t.test('a server that does not answer is given up in time, and the outcome is unsure', async (t) => {
  const { server, baseUrl } = await serve(() => 'silence');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const client = new CouchDbClient({
    baseUrl,
    credentials: () => ({ name: 'admin', password: 'secret' }),
    readTimeoutMs: 50,
    writeTimeoutMs: 50,
  });
  const error: unknown = await client.put('app', {}, signal).catch((caught: unknown) => caught);
  t.match(error, { status: 0, unsure: true, reason: 'no answer in time' });
});

t.test('errors name neither password nor header', async (t) => {
  const { server, baseUrl } = await serve(() => ({
    status: 500,
    body: { error: 'badmatch', reason: 'secret-free' },
  }));
  t.teardown(() => server.close());
  const client = new CouchDbClient({
    baseUrl,
    credentials: () => ({ name: 'admin', password: 'verysecret' }),
  });
  const error: unknown = await client.get('app', signal).catch((caught: unknown) => caught);
  t.ok(error instanceof CouchDbAnswer);
  const shown = `${String(error)} ${JSON.stringify(error)} ${error instanceof Error ? error.stack : ''}`;
  t.notMatch(shown, 'verysecret');
  t.notMatch(shown, Buffer.from('admin:verysecret').toString('base64'));
  t.match(shown, '500 badmatch: secret-free');
});

t.test('a transient setting is marked as such, and its value is a JSON string', async (t) => {
  const seen: string[] = [];
  const { server, baseUrl } = await serve((request) => {
    request.on('data', (chunk: Buffer) => seen.push(chunk.toString()));
    seen.push(String(request.headers['x-couch-persist']));
    return { status: 200, body: 'false' };
  });
  t.teardown(() => server.close());
  const client = new CouchDbClient({ baseUrl, credentials: () => ({ name: 'admin', password: 'secret' }) });
  await client.put('_node/_local/_config/couchdb/maintenance_mode', 'true', signal, true);
  await client.put('_node/_local/_nodes/x', { decom: true }, signal);
  t.same(seen, ['false', '"true"', 'undefined', '{"decom":true}']);
});
