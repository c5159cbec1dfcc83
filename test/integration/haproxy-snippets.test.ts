import { readdir, readFile } from 'node:fs/promises';
import { connect as connectHttp2 } from 'node:http2';
import { createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { runCommand } from '../../src/host/command.ts';
import type { PluginError } from '../../src/plugins/contract.ts';
import type { AppHaproxy } from '../../src/plugins/haproxy/desired.ts';
import { ask, parseProcesses } from '../../src/plugins/haproxy/runtime.ts';
import { freePort } from '../support/free-port.ts';
import { appDesired, Bed, converge, get, peer } from './haproxy-bed.ts';
import { until } from '../support/until.ts';

/** The founder's own parts of the configuration, on a real HAProxy. */

const bed = await Bed.make();
t.teardown(() => bed.end());
const ca = bed.pki.ca;
const address = bed.address(1);
const [node, databasePort] = [await bed.pki.leaf('app1', 'app'), await freePort()];
const [first, second] = [
  await bed.server((_, response) => response.end('first')),
  await bed.server((_, response) => response.end('second')),
];
const good = (port: number): string => `# Our shop of last year.
frontend edge
  http-request redirect location https://new.example/%[path] code 301 if { path_beg /old }
  use_backend legacy if { path_beg /legacy }

backend legacy
  server one 127.0.0.1:${port} check inter 100ms
`;
const base = appDesired({ address, node, ca, databasePort });
const desiredOf = (
  files: Readonly<Record<string, string>>,
  more: { readonly readMs?: number; readonly hsts?: number } = {},
): AppHaproxy => ({
  ...base,
  edge: { ...base.edge, hstsMaxAgeSeconds: more.hsts },
  snippets: {
    readMs: more.readMs ?? 1,
    ports: [80, 443, 8443, 8404, databasePort],
    files: Object.entries(files).map(([name, text]) => ({ file: `/etc/bornemisza/haproxy.d/${name}`, text })),
  },
});
const instance = await bed.launch('edge', desiredOf({ 'good.cfg': good(first.port) }));
const tls = { ca, checkServerIdentity: () => undefined };
const edge = (path: string) => get(`https://${address}${path}`, tls);
const summaries = (changes: readonly { summary: string }[]): string[] =>
  changes.map(({ summary }) => summary);
async function failure(desired: AppHaproxy): Promise<PluginError> {
  try {
    await converge(instance.plugin, desired);
  } catch (error) {
    return error as PluginError;
  }
  throw new Error('was expected to fail');
}
const alarmsOf = async (desired: AppHaproxy): Promise<string[]> => {
  const { alarms } = instance.plugin.status(
    desired,
    await instance.plugin.observe(AbortSignal.timeout(5000)),
  );
  return alarms.map(({ code, message }) => `${code} ${message}`);
};
/** That the good one works, and everything else. */
async function works(t: Test, hsts?: number): Promise<void> {
  const legacy = await edge('/legacy');
  t.strictSame([legacy.status, legacy.body], [200, 'first'], 'a backend of the founder’s');
  t.equal(legacy.headers['strict-transport-security'], hsts === undefined ? undefined : `max-age=${hsts}`);
  t.match(await edge('/old/x'), { status: 301, headers: { location: 'https://new.example//old/x' } });
}

t.test('a good one is embedded, and nothing is left to do', async (t) => {
  t.notMatch(instance.log, /ALERT/);
  await works(t);
  const desired = desiredOf({ 'good.cfg': good(first.port) });
  t.strictSame(await converge(instance.plugin, desired), []);
  t.strictSame(await alarmsOf(desired), []);
  const reading = desiredOf({ 'good.cfg': good(first.port) }, { readMs: 2 });
  t.strictSame(await converge(instance.plugin, reading), [], 'another reading is no reload');
  t.equal((await edge('/.well-known/bornemisza/health')).status, 200, 'what is ours comes first');
});

t.test('its server belongs to the founder: what HAProxy or a person does with it stays', async (t) => {
  const desired = desiredOf({ 'good.cfg': good(first.port) });
  for (const command of ['set server legacy/one state drain', 'set server legacy/one weight 50%']) {
    t.equal(await instance.ask(command), '');
    t.strictSame(await converge(instance.plugin, desired), [], command);
  }
  t.match(await instance.servers('legacy'), { one: /DRAIN/ });
  await instance.ask('set server legacy/one state ready');
  await instance.ask('set server legacy/one weight 100%');
  await converge(instance.plugin, desiredOf({ 'good.cfg': good(second.port) }));
  t.equal(
    (await edge('/legacy')).body,
    'second',
    'a changed address is used, whatever the former process knew',
  );
  await converge(instance.plugin, desired);
  await works(t);
});

t.test('what HAProxy refuses is left out with its reason and line; all the rest is done', async (t) => {
  const files = {
    'a-unknown.cfg': '# A comment\n\nbackend a\n  # another\n  servr x 127.0.0.1:1\n',
    'b-syntax.cfg': 'frontend edge\n  http-request deny if { path /x\n',
    'c-needs-later.cfg': 'frontend edge\n  use_backend later if { path /later }\n',
    'd-missing.cfg': 'frontend edge\n  use_backend nowhere if { path /n }\n',
    'e-global.cfg': 'backend e\nglobal\n  daemon\n',
    'good.cfg': good(first.port),
    'later.cfg':
      'backend later\n  http-request return status 503 content-type text/html string "<h1>Closed</h1>"\n',
    'twice.cfg': '\nbackend legacy\n  server two 127.0.0.1:1\n',
  };
  const desired = desiredOf(files, { hsts: 7 });
  const error = await failure(desired);
  t.match(error, { code: 'haproxy-snippet-refused', outcome: 'retry', next: /bornemisza reload/ });
  t.notMatch(error.message, /good\.cfg|later\.cfg|e-global/);
  await works(t);
  await converge(instance.plugin, desired);
  await works(t, 7);
  t.match(await edge('/later'), { status: 503, body: '<h1>Closed</h1>' }, 'one that needs another file');
  const alarms = await alarmsOf(desired);
  for (const [place, says] of [
    ['a-unknown.cfg:5', /unknown keyword 'servr'/],
    ['b-syntax.cfg:2', /HAProxy says: .*(closing brace|missing)/],
    ['d-missing.cfg', /nowhere/],
    ['e-global.cfg:2', /section "global"/],
    ['twice.cfg:2', /same name|already declared/],
  ] as const)
    t.match(
      alarms.find((alarm) => alarm.startsWith(`haproxy-snippet-refused /etc/bornemisza/haproxy.d/${place}`)),
      says,
      place,
    );
  t.equal(alarms.length, 5, alarms.join('\n'));
  t.notMatch(alarms.join(), /\.cfg\.\w+\.cfg|\/bm-haproxy-/, 'no name of a file of ours');
  t.strictSame(await converge(instance.plugin, desired), [], 'not tried again by itself');
  const mended = { ...files, 'a-unknown.cfg': files['a-unknown.cfg'].replace('servr', 'server') };
  t.match(await failure(desiredOf(mended, { readMs: 2, hsts: 7 })), { message: /b-syntax/ });
  await converge(instance.plugin, desiredOf(mended, { readMs: 2, hsts: 7 }));
  t.ok('x' in (await instance.servers('a')), 'a changed file is tried again');
  await converge(instance.plugin, desiredOf({ 'good.cfg': good(first.port) }));
});

t.test('one whose port is in use costs nothing but itself, at a reload and at a start', async (t) => {
  const port = await freePort();
  const taken = createTcpServer();
  await new Promise<void>((resolve) => taken.listen(port, address, resolve));
  t.teardown(() => taken.close());
  const files = {
    'good.cfg': good(first.port),
    'port.cfg': `frontend mine\n  bind ${address}:${port}\n  http-request return status 200\n`,
  };
  const [desired, again] = [1, 2].map((readMs) => desiredOf(files, { hsts: 9, readMs })) as [
    AppHaproxy,
    AppHaproxy,
  ];
  const { pid } = (await instance.plugin.observe(AbortSignal.timeout(5000))).running ?? {};
  t.match(await failure(desired), {
    code: 'haproxy-snippet-refused',
    message: new RegExp(`port\\.cfg:2 .*another program listens on port ${port}`),
  });
  await works(t);
  t.match(
    await instance.plugin.observe(AbortSignal.timeout(5000)),
    { running: { pid } },
    'no reload was tried',
  );
  await converge(instance.plugin, desired);
  await works(t, 9);
  t.match(await alarmsOf(desired), [/port\.cfg/]);
  await new Promise((resolve) => taken.close(resolve));
  t.strictSame(await converge(instance.plugin, desired), [], 'it waits for the next reading');
  await converge(instance.plugin, again);
  t.equal((await get(`http://${address}:${port}/`)).status, 200, 'which finds the port free');
  t.strictSame(await alarmsOf(again), []);

  // After a boot another program has the port: HAProxy could not start from the file that it ran with.
  await instance.stop();
  const other = createTcpServer();
  await new Promise<void>((resolve) => other.listen(port, address, resolve));
  t.teardown(() => other.close());
  t.match(await failure(again), { code: 'haproxy-not-running' });
  t.notMatch(await readFile(instance.config, 'utf8'), /legacy|frontend mine/);
  // It starts in the middle of a run.
  const { plugin } = instance;
  const late = Object.assign(Object.create(plugin) as typeof plugin, {
    apply: (...given: Parameters<typeof plugin.apply>) => instance.start().then(() => plugin.apply(...given)),
    observe: plugin.observe.bind(plugin),
    plan: plugin.plan.bind(plugin),
    validate: plugin.validate.bind(plugin),
    status: plugin.status.bind(plugin),
  });
  t.match(
    summaries(await converge(late, again)),
    [/^HAProxy is not running/],
    'what comes later is no fault',
  );
  t.equal((await edge('/.well-known/bornemisza/health')).status, 200, 'the edge serves');
  t.match(await failure(again), { code: 'haproxy-snippet-refused' });
  await converge(instance.plugin, again);
  await works(t, 9);
});

/** Whether the master keeps the sockets of a process that failed to start, as 2.4's does: it lists no present one. */
async function keepsSockets(): Promise<boolean> {
  if (await instance.ask('show info').then(Boolean, () => false)) return false;
  const answer = await ask(join(instance.runDirectory, 'master.sock'), 'show proc', { unit: 'this one' });
  return !parseProcesses(answer).some(({ kind }) => kind === 'worker');
}

t.test('one that keeps a new process from starting for another reason is left out as well', async (t) => {
  // HAProxy's check makes no socket: it does not see that the directory is missing.
  const files = {
    'good.cfg': good(first.port),
    'socket.cfg': `# A comment\nfrontend mine\n  bind ${bed.root}/missing/x.sock\n  http-request return status 200\n`,
  };
  const desired = desiredOf(files, { hsts: 11 });
  const refused = {
    code: 'haproxy-snippet-refused',
    message: /socket\.cfg(:3)? .*(does not start with it|HAProxy says)/,
  };
  t.match(await failure(desired), refused);
  if (await keepsSockets()) {
    t.match(await failure(desired), {
      code: 'haproxy-needs-restart',
      next: /systemctl restart bornemisza-haproxy@app\.service/,
    });
    for (let request = 0; request < 20; request += 1) await works(t, 9);
    await instance.stop();
    await instance.start();
  }
  await converge(instance.plugin, desired);
  await works(t, 11);
  t.match(await alarmsOf(desired), [refused.message]);
});

t.test('sockets are seen where the unit of the daemon hides the rest of /proc', async (t) => {
  const other = createTcpServer();
  const port = await freePort();
  await new Promise<void>((resolve) => other.listen(port, address, resolve));
  t.teardown(() => other.close());
  const module = new URL('../../src/host/listening-sockets.ts', import.meta.url).href;
  const code = `import('${module}').then(async (all) => console.log(JSON.stringify(await all.listeningSockets())))`;
  const hidden = 'mount -t proc -o subset=pid proc /proc && exec "$0" "$@"';
  const { stdout, stderr } = await runCommand(
    'unshare',
    ['--mount', 'sh', '-c', hidden, process.execPath, '--eval', code],
    { timeoutMs: 60_000 },
  );
  t.match(JSON.parse(stdout || '[]'), { length: Number }, stderr);
  const found = (JSON.parse(stdout) as { address: string; port: number }[]).some(
    (each) => each.address === address && each.port === port,
  );
  t.ok(found, stdout);
});

t.test('the examples of the documentation are accepted', async (t) => {
  const text = await readFile(new URL('../../docs/haproxy.md', import.meta.url), 'utf8');
  const examples = [...text.matchAll(/^# \/etc\/bornemisza\/haproxy\.d\/(\S+)\n([^`]*)/gm)];
  const files = Object.fromEntries(examples.map(([, name = '', lines = '']) => [name, lines]));
  t.strictSame(Object.keys(files), ['legacy.cfg', 'closed.cfg']);
  const desired = desiredOf(files);
  await converge(instance.plugin, desired);
  t.strictSame(await alarmsOf(desired), []);
  const old = await get(`https://${address}/x?y=1`, { ...tls, headers: { host: 'OLD.example' } });
  t.match(old, { status: 301, headers: { location: 'https://shop.example/x?y=1' } });
  t.match(await edge('/'), {
    status: 503,
    headers: { 'retry-after': '600' },
    body: '<h1>Back at noon.</h1>',
  });
  t.equal((await edge('/.well-known/bornemisza/health')).status, 200, 'health is answered before');
});

t.test('a page for errors, bounds of a service, a password for the statistics', async (t) => {
  let bytes = 0;
  const shop = await bed.server((request, response) => {
    bytes = 0;
    request.on('data', (chunk: Buffer) => (bytes += chunk.length));
    if (request.url === '/shop/own') return void response.writeHead(503).end('{"mine":true}');
    if (request.url === '/shop/hang') return;
    if (request.url === '/shop/drop') return void request.socket.destroy();
    request.on('end', () => response.end(String(bytes)));
  });
  const at = bed.address(2);
  const page = `<!doctype html><title>Soon</title>${'<p>Ä</p>'.repeat(1500)}`.padEnd(15_360 - 3000, ' ');
  t.ok(Buffer.byteLength(page) <= 15_360);
  const serviceOf = (name: string, port: number) => ({
    name,
    prefix: `/${name}`,
    healthPath: `/${name}`,
    localPort: port,
    peers: { verifySuffix: 'app.shop.internal', servers: [peer('app1', at, 8443)] },
  });
  const shopService = { ...serviceOf('shop', shop.port), timeoutSeconds: 1, maxBodyKb: 2 };
  const desired: AppHaproxy = {
    ...appDesired({ address: at, node, ca, databasePort: await freePort() }),
    services: [shopService, serviceOf('gone', await freePort())],
    errorPage: page,
  };
  const { plugin, directory, log } = await bed.launch('bounds', desired);
  t.notMatch(log, /ALERT.*(page|http-error)/);
  const ask = (path: string, options: Parameters<typeof get>[1] = {}) =>
    get(`https://${at}${path}`, { ...tls, ...options });
  await until(async () => (await ask('/shop/x')).status === 200, { what: 'the service is up' });

  for (const [path, status] of [
    ['/gone', 503],
    ['/shop/hang', 504],
  ] as const) {
    const reply = await ask(path);
    t.equal(reply.status, status, path);
    t.equal(reply.body, page, 'whole');
    t.match(reply.headers, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' });
  }
  t.match(await ask('/shop/drop', { method: 'POST' }), { status: 502, body: page });
  t.match(
    await ask('/shop/own', { method: 'POST' }),
    { status: 503, body: '{"mine":true}' },
    'a service’s own answer',
  );

  const post = (size: number, headers: Record<string, string> = {}) =>
    ask('/shop/x', {
      method: 'POST',
      body: 'x'.repeat(size),
      headers: { 'content-length': `${size}`, ...headers },
    });
  t.match(await post(2048), { status: 200, body: '2048' });
  t.match(await post(2049), { status: 413, headers: { 'content-type': 'application/problem+json' } });
  t.equal(JSON.parse((await post(2049)).body).type, '/problems/content-too-large');
  const parts = await ask('/shop/x', {
    method: 'POST',
    body: 'x',
    headers: { 'transfer-encoding': 'chunked' },
  });
  t.equal(parts.status, 411);
  t.equal((await ask('/shop/x', { method: 'DELETE' })).status, 200, 'no body, no length');
  t.strictSame(await overHttp2(at, { ':method': 'POST', ':path': '/shop/x' }, 'x'.repeat(5000)), 411);
  t.strictSame(await overHttp2(at, { ':method': 'GET', ':path': '/shop/x' }), 200);

  const statistics = async (path: string, auth?: string): Promise<number> =>
    (await get(`http://${at}:8404${path}`, { ...(auth !== undefined && { auth }) })).status;
  t.strictSame([await statistics('/'), await statistics('/metrics')], [200, 200]);
  await converge(plugin, { ...desired, statisticsPassword: 'twelve-chars' });
  for (const path of ['/', '/metrics', '/;csv']) {
    t.equal(await statistics(path), 401, path);
    t.equal(await statistics(path, 'metrics:twelve-chars.'), 401, path);
    t.equal(await statistics(path, 'metrics:twelve-chars'), 200, path);
  }
  await converge(plugin, { ...desired, statisticsPassword: null });
  t.strictSame([await statistics('/'), await statistics('/metrics', 'metrics:twelve-chars')], [403, 403]);

  const { kind } = (await converge(plugin, { ...desired, errorPage: `${page} ` })).at(-1) ?? {};
  t.equal(kind, 'reload', 'another page');
  t.equal((await ask('/gone')).body, `${page} `);
  t.strictSame(await converge(plugin, { ...desired, errorPage: `${page} ` }), []);
  const services = [
    { ...shopService, timeoutSeconds: 900, maxBodyKb: 1 },
    serviceOf('gone', await freePort()),
  ];
  await converge(plugin, { ...desired, errorPage: undefined, services });
  t.equal((await post(2048)).status, 413, 'another bound');
  t.notMatch((await ask('/gone')).body, /Soon/);
  t.equal(
    (await readdir(directory)).filter((name) => name.startsWith('page-')).length,
    2,
    'kept for a rollback',
  );
});

function overHttp2(
  host: string,
  headers: Record<string, string>,
  body?: string,
): Promise<number | undefined> {
  const session = connectHttp2(`https://${host}`, tls);
  return new Promise<number | undefined>((resolve, reject) => {
    const stream = session.on('error', reject).request(headers, { endStream: body === undefined });
    stream.on('error', reject);
    stream.on('response', (reply) => resolve(reply[':status']));
    if (body !== undefined) stream.end(body);
  }).finally(() => session.destroy());
}
