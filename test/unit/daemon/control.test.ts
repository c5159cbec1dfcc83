import { once } from 'node:events';
import { access, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { AuditEntry } from '../../../src/daemon/control/api.ts';
import {
  type ControlActions,
  type ControlDependencies,
  ControlServer,
} from '../../../src/daemon/control/server.ts';
import { OperatorError } from '../../../src/daemon/errors.ts';
import { until } from '../../support/until.ts';

const entry = (id: number, subjects: readonly string[] = []): AuditEntry => ({
  id,
  at: '2026-01-01T00:00:00.000Z',
  kind: 'daemon',
  summary: 'x'.repeat(2000),
  trigger: '',
  subjects,
  result: 'info',
});

/** Answers of the far end; records what was asked of it. */
class Actions {
  off: readonly string[] = ['dns'];
  readonly asked: unknown[] = [];
  readonly followers = new Set<(entry: AuditEntry) => void>();
  past: AuditEntry[] = [];
  fails: Error | undefined;

  readonly #done = async (what: unknown) => {
    this.asked.push(what);
    if (this.fails !== undefined) throw this.fails;
    return { done: true as const, message: 'done' };
  };

  get all(): ControlDependencies {
    return { trail: this.#trail, actions: () => this.#actions };
  }

  get #trail(): ControlDependencies['trail'] {
    return {
      query: (options) => {
        this.asked.push(options);
        return this.past;
      },
      follow: (follower) => {
        this.followers.add(follower);
        return () => this.followers.delete(follower);
      },
    };
  }

  get #actions(): ControlActions {
    return {
      status: () => ({ version: '1' }),
      members: () => ({ self: 'a/app', members: [] }),
      plan: async () => ({ plugins: [] }),
      trails: async (what: unknown) => {
        this.asked.push(what);
        return { trails: [] };
      },
      ping: this.#done,
      maintenance: this.#done,
      logRequests: this.#done,
      remove: this.#done,
      releaseGuards: () => this.#done('release'),
      reload: () => this.#done('reload'),
      ask: async (program: string, verb: string, request: object) => {
        this.asked.push([program, verb, request]);
        return this.off.includes(program) ? undefined : { done: true };
      },
      testNotification: async (progress: (step: object) => void) => {
        progress({ message: 'mail failed', error: { code: 'x', message: 'mail failed', next: 'mend it' } });
        return this.#done('notify test');
      },
      rollout: (verb: string) => {
        this.asked.push(verb);
        return { done: true, message: verb };
      },
      tokens: () => this.#done('tokens'),
      createTokens: async (what: unknown) => {
        this.asked.push(what);
        return [{ token: 'bm1.a' }, { token: 'bm1.b' }];
      },
      revokeTokens: this.#done,
      leave: async (what: unknown, progress: (step: { message: string }) => void) => {
        progress({ message: 'first step' });
        return this.#done(what);
      },
    } as unknown as ControlActions;
  }
}

/** Not t.testdir(): a unix socket's path has 107 characters at most. */
async function place(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'bm-control-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

async function listening(t: Test, actions = new Actions()) {
  const path = join(await place(t), 'run', 'control.sock');
  const server = new ControlServer({ path, role: 'app' }, actions.all);
  await server.listen();
  t.teardown(() => server.close());
  return { path, server, actions };
}

async function open(path: string, method: string, to: string, body?: string, chunked = false) {
  const length = body === undefined || chunked ? {} : { 'content-length': Buffer.byteLength(body) };
  const call = request({ socketPath: path, method, path: to, headers: { host: 'x', ...length } });
  call.end(body);
  const [response] = (await once(call, 'response')) as [IncomingMessage];
  return response;
}

async function ask(path: string, method: string, to: string, body?: string, chunked = false) {
  const response = await open(path, method, to, body, chunked);
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += String(chunk);
  return { status: response.statusCode, text };
}

t.test('the socket is for owner and group', async (t) => {
  const { path } = await listening(t);
  t.equal((await stat(path)).mode & 0o777, 0o660);
  t.match(await ask(path, 'GET', '/v1/status'), { status: 200, text: /"version":"1"/ });
});

t.test('bodies that are not what a call takes', async (t) => {
  const { path, actions } = await listening(t);
  const bad: readonly (readonly [to: string, body: string, message: RegExp])[] = [
    ['/v1/maintenance', '{', /the request is not valid: the body is not JSON/],
    ['/v1/maintenance', '', /not valid: on: /],
    ['/v1/maintenance', 'null', /not valid: Invalid input/],
    ['/v1/maintenance', '[]', /not valid: Invalid input/],
    ['/v1/maintenance', '{"on":"yes"}', /not valid: on: /],
    ['/v1/maintenance', '{"on":true,"forse":true}', /forse/],
    ['/v1/log/requests', '{}', /not valid: on: /],
    ['/v1/log/requests', '{"on":true,"forMs":59999}', /forMs/],
    ['/v1/log/requests', '{"on":true,"forMs":604800001}', /forMs/],
    ['/v1/leave', '{"force":1}', /force/],
    ['/v1/tokens', '{"role":"root"}', /role/],
    ['/v1/tokens', '{"role":"db","ttlMs":1}', /ttlMs/],
    ['/v1/tokens', '{"role":"db","ttlMs":1e12}', /ttlMs/],
    ['/v1/tokens', '{"role":"db","count":0}', /count/],
    ['/v1/tokens', '{"role":"db","count":65}', /count/],
    ['/v1/tokens', '{"role":"db","count":1.5}', /count/],
    ['/v1/tokens/revoke', '{}', /either id or all/],
    ['/v1/tokens/revoke', '{"all":false}', /all/],
    ['/v1/tokens/revoke', '{"all":true,"id":"0011223344556677"}', /either id or all/],
    ['/v1/tokens/revoke', '{"id":"../../etc/passwd"}', /16 hex/],
    ['/v1/remove', '{"node":""}', /node/],
    ['/v1/remove', `{"node":"${'n'.repeat(201)}"}`, /node/],
    ['/v1/guards/release', '{"x":1}', /x/],
    ['/v1/ping', '{"node":""}', /node/],
    ['/v1/ping', '{"address":"127.0.0.1"}', /address/],
    ['/v1/reload', '3', /not valid/],
    ['/v1/certificate/renew', '{"force":"yes"}', /force/],
    ['/v1/certificate/revoke', '{"reason":"boredom"}', /reason/],
    ['/v1/certificate/revoke', '{"now":1}', /now/],
    ['/v1/certificate/revoke', '{"names":["a.example"]}', /Unrecognized key/],
    ['/v1/dns/adopt', '{"name":"shop.example\\nsend","type":"A"}', /full name/],
    ['/v1/dns/adopt', '{"name":"shop.example","type":"MX"}', /type/],
    ['/v1/dns/release', '{"name":"shop.example"}', /type/],
    ['/v1/certificate/renew', '{"names":["a.example"]}', /Unrecognized key/],
    // A rollout takes no words: what is installed is nobody's to say.
    ['/v1/upgrade/start', '{"package":"x"}', /Unrecognized key/],
    ['/v1/upgrade/resume', '{"version":"1"}', /Unrecognized key/],
  ];
  for (const [to, body, message] of bad) {
    const answer = await ask(path, 'POST', to, body);
    t.equal(answer.status, 400, `${to} ${body}`);
    t.match(
      JSON.parse(answer.text),
      { error: { code: 'bad-request', message, next: /\S/ } },
      `${to} ${body}`,
    );
  }
  t.strictSame(actions.asked, [], 'nothing of it reached the daemon');
  t.match(await ask(path, 'POST', '/v1/reload'), { status: 200 }, 'no body is an empty one');
  t.match(await ask(path, 'POST', '/v1/maintenance', '{"on":true}'), { status: 200 });
  t.match(await ask(path, 'POST', '/v1/certificate/renew', '{"force":true}'), { status: 200 });
  t.match(await ask(path, 'POST', '/v1/certificate/revoke', '{"reason":"superseded","now":true}'), {
    status: 200,
  });
  t.match(await ask(path, 'POST', '/v1/certificate/order', '{}'), { status: 404 });
  for (const verb of ['start', 'stop', 'resume'])
    t.match(await ask(path, 'POST', `/v1/upgrade/${verb}`), { status: 200 });
  t.match(await ask(path, 'POST', '/v1/upgrade/dnf'), { status: 404 });
  t.strictSame(actions.asked, [
    'reload',
    { on: true, force: false },
    ['certificates', 'renew', { force: true }],
    ['certificates', 'revoke', { reason: 'superseded', now: true }],
    'start',
    'stop',
    'resume',
  ]);
});

t.test('a program that this node does not run is named, with what to do', async (t) => {
  const actions = new Actions();
  actions.off = ['certificates', 'dns', 'floating'];
  const { path } = await listening(t, actions);
  for (const [to, code, message, next] of [
    ['/v1/certificate', 'certificates-off', /orders no certificate of the site/, /certificates\.md/],
    ['/v1/dns', 'dns-off', /manages no DNS records: it has no \[dns\]/, /dns\.md/],
    ['/v1/floating', 'floating-off', /no floating IP assigned by an API/, /floating\.md/],
  ] as const) {
    const { text } = await ask(path, 'GET', to);
    t.match(JSON.parse(text), { error: { code, message, next } }, to);
  }
});

t.test('tokens: one is an object, a count makes a list of them, and one or all are revoked', async (t) => {
  const { path, actions } = await listening(t);
  const made = async (body: string) =>
    JSON.parse((await ask(path, 'POST', '/v1/tokens', body)).text) as unknown;
  t.strictSame(await made('{"role":"db"}'), { token: 'bm1.a' });
  t.strictSame(await made('{"role":"db","count":2}'), { tokens: [{ token: 'bm1.a' }, { token: 'bm1.b' }] });
  t.match(await ask(path, 'GET', '/v1/tokens'), { status: 200 });
  for (const body of ['{"all":true}', '{"id":"0011223344556677"}'])
    t.match(await ask(path, 'POST', '/v1/tokens/revoke', body), { status: 200 });
  t.strictSame(actions.asked, [
    { role: 'db', ttlMs: 3_600_000 },
    { role: 'db', ttlMs: 3_600_000, count: 2 },
    'tokens',
    { all: true },
    { id: '0011223344556677' },
  ]);
});

t.test('questions that make no sense', async (t) => {
  const { path, actions } = await listening(t);
  for (const query of [
    'since=x',
    'since=-1',
    'limit=0',
    'limit=2001',
    'follow=2',
    `node=${'n'.repeat(201)}`,
  ]) {
    t.match(await ask(path, 'GET', `/v1/audit?${query}`), { status: 400, text: /bad-request/ }, query);
    t.match(await ask(path, 'GET', `/v1/events?${query}`), { status: 400, text: /bad-request/ }, query);
  }
  for (const query of ['since_ms=-1', 'limit=0', 'limit=2001', 'failed=yes', `node=${'n'.repeat(201)}`])
    t.match(
      await ask(path, 'GET', `/v1/cluster/audit?${query}`),
      { status: 400, text: /bad-request/ },
      query,
    );
  t.strictSame(actions.asked, []);
  t.match(await ask(path, 'GET', '/v1/audit?node=db1%2Fdb&since=3&limit=5'), { status: 200 });
  t.match(await ask(path, 'GET', '/v1/cluster/audit?node=db1&failed=1&since_ms=7'), { status: 200 });
  t.strictSame(actions.asked, [
    { subject: 'db1/db', sinceId: 3, limit: 5 },
    { node: 'db1', failed: '1', since_ms: 7, limit: 200 },
  ]);
});

t.test('paths and methods that are not there', async (t) => {
  const { path } = await listening(t);
  for (const [method, to] of [
    ['GET', '/'],
    ['GET', '/v1/../../etc/shadow'],
    ['GET', '/v1/maintenance'],
    ['POST', '/v1/status'],
    ['DELETE', '/v1/status'],
  ] as const) {
    t.match(await ask(path, method, to), { status: 404, text: /no-such-path/ }, `${method} ${to}`);
  }
});

t.test('a body that is too large is refused, announced or not', async (t) => {
  const { path, actions } = await listening(t);
  const body = `{"on":true,"x":"${'y'.repeat(20_000)}"}`;
  t.match(await ask(path, 'POST', '/v1/maintenance', body), { status: 413, text: /body-too-large/ });
  t.match(await ask(path, 'POST', '/v1/maintenance', body, true), { status: 413, text: /body-too-large/ });
  t.strictSame(actions.asked, []);
});

t.test('a refusal keeps its code; what nobody foresaw points to the journal', async (t) => {
  const { path, actions } = await listening(t);
  const post = () => ask(path, 'POST', '/v1/maintenance', '{"on":true}');
  actions.fails = new OperatorError('guard-last-of-role', 'the last one', 'add --force');
  t.match(await post(), { status: 409, text: /"guard-last-of-role".*"the last one".*"add --force"/ });
  actions.fails = new OperatorError('member-unknown', 'm', 'n');
  t.match(await post(), { status: 404 });
  actions.fails = new Error('boom');
  t.match(await post(), { status: 500, text: /"internal".*boom.*journalctl -u bornemisza@app"/ });
  const lines = (await ask(path, 'POST', '/v1/leave', '{}')).text.trim().split('\n');
  t.match(
    lines.map((line) => JSON.parse(line) as unknown),
    [{ message: 'first step' }, { message: 'boom', error: { code: 'internal', next: /-u bornemisza@app$/ } }],
  );
});

t.test('a follower gets the past once, then what happens, and no more after it went', async (t) => {
  const { path, actions } = await listening(t);
  actions.past = [entry(1), entry(2)];
  const response = await open(path, 'GET', '/v1/events?follow=1&node=a');
  let text = '';
  response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  await until(() => actions.followers.size === 1);
  const [follower] = actions.followers;
  follower?.(entry(3, ['b/db']));
  follower?.(entry(4, ['a/app']));
  await until(() => text.includes('"id":4'));
  t.strictSame(
    [...text.matchAll(/"id":(\d)/g)].map(([, id]) => id),
    ['1', '2', '4'],
  );
  response.destroy();
  await until(() => actions.followers.size === 0);
});

t.test('a follower that stalls is let go, and holds a bounded number of entries', async (t) => {
  const { path, actions } = await listening(t);
  const response = await open(path, 'GET', '/v1/events?follow=1&node=a');
  response.pause();
  await until(() => actions.followers.size === 1);
  const [follower] = actions.followers;
  const sent = 10_000;
  let looked = 0;
  for (let id = 1; id <= sent; id += 1) {
    // Whoever keeps an entry has looked first whether it is about the node that was asked for.
    const subjects = () => {
      looked += 1;
      return ['a/app'];
    };
    follower?.(Object.defineProperty(entry(id), 'subjects', { get: subjects, enumerable: false }));
    if (id % 500 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(looked < sent / 2, `${looked} of ${sent} were kept`);
  let text = '';
  response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  response.resume();
  await until(() => response.readableEnded, { what: 'the stream to end' });
  const ids = [...text.matchAll(/"id":(\d+)/g)].map(([, id]) => Number(id));
  t.ok(ids.length > 0);
  t.strictSame(
    ids,
    ids.map((_, index) => index + 1),
    'without a gap up to where it ended',
  );
  await until(() => actions.followers.size === 0);
});

t.test('readers that stall are so many at most, and others get in once they go', async (t) => {
  const { path, actions } = await listening(t);
  actions.past = Array.from({ length: 2000 }, (_, index) => entry(index + 1));
  const readers: ClientRequest[] = [];
  let refused = 0;
  for (let count = 0; count < 50; count += 1) {
    const reader = request({ socketPath: path, path: '/v1/events?follow=1', headers: { host: 'x' } });
    readers.push(reader);
    const answered = new Promise<void>((resolve) => {
      reader.once('response', (response) => resolve(void response.pause().on('error', () => undefined)));
      reader.once('error', () => resolve(void (refused += 1)));
    });
    reader.end();
    await answered;
  }
  t.equal(refused, 18, '32 of 50 are read for');
  t.equal(actions.followers.size, 32);
  await t.rejects(ask(path, 'GET', '/v1/status'));
  for (const reader of readers.slice(0, 8)) reader.destroy();
  await until(async () => (await ask(path, 'GET', '/v1/status').catch(() => undefined))?.status === 200, {
    what: 'an answer in the place of one that went',
  });
  for (const reader of readers) reader.destroy();
  await until(() => actions.followers.size === 0, { what: 'nothing is kept for who went' });
});

t.test('a socket that a killed daemon left behind is taken over', async (t) => {
  const path = join(await place(t), 'control.sock');
  await writeFile(path, '');
  const server = new ControlServer({ path, role: 'app' }, new Actions().all);
  t.teardown(() => server.close());
  await server.listen();
  t.match(await ask(path, 'GET', '/v1/status'), { status: 200 });
});

t.test('a test of notification is a line for each way, failed ones as well, and a last one', async (t) => {
  const { path, actions } = await listening(t);
  const lines = (await ask(path, 'POST', '/v1/notify/test', '{}')).text.trim().split('\n');
  t.match(
    lines.map((line) => JSON.parse(line) as unknown),
    [{ message: 'mail failed', error: { next: 'mend it' } }, { done: true }],
  );
  t.same(actions.asked, ['notify test']);
  t.equal((await ask(path, 'POST', '/v1/notify/test', '{"to":"x"}')).status, 400);
});

t.test('a second daemon is refused, and its end leaves the first one’s socket alone', async (t) => {
  const { path, server } = await listening(t);
  const second = new ControlServer({ path, role: 'app' }, new Actions().all);
  await t.rejects(second.listen(), {
    code: 'already-running',
    next: 'stop it first: systemctl stop bornemisza@app',
    message: /another daemon answers/,
  });
  await second.close();
  t.match(await ask(path, 'GET', '/v1/status'), { status: 200 }, 'the first one still answers');
  await server.close();
  await t.rejects(access(path), { code: 'ENOENT' }, 'an orderly end leaves no socket');
  await server.close();
});

t.test('a place where no socket can be ends in one sentence', async (t) => {
  const directory = await place(t);
  await writeFile(join(directory, 'file'), '');
  const bad = [
    join(directory, 'file', 'control.sock'),
    join(directory, 'taken'),
    join(directory, 'n'.repeat(120)),
  ];
  await mkdir(join(directory, 'taken'));
  for (const path of bad) {
    const server = new ControlServer({ path, role: 'app' }, new Actions().all);
    await t.rejects(server.listen(), {
      code: 'control-socket',
      message: /^cannot listen on [^\n]*: [A-Z_]+$/,
      next: /owner and mode|shorter/,
    });
    await server.close();
  }
});

t.test('another program on the socket’s path is not put out', async (t) => {
  const path = join(await place(t), 'control.sock');
  const other = createServer().listen(path);
  await once(other, 'listening');
  t.teardown(() => other.close());
  const server = new ControlServer({ path, role: 'app' }, new Actions().all);
  await t.rejects(server.listen(), { code: 'already-running' });
  await server.close();
  await access(path);
});
