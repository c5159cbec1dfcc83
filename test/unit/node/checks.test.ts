import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { parseConfig, parseService } from '../../../src/daemon/config/config.ts';
import { probe, type ProbeTarget } from '../../../src/daemon/health/probe.ts';
import { checksFor } from '../../../src/daemon/node/checks.ts';
import { render } from '../../../src/plugins/haproxy/render.ts';
import { app, db, layout } from '../plugins/haproxy-cases.ts';

const NODE =
  '[node]\ncluster = "shop"\nhost = "app1"\n[network]\nprivate_address = "10.0.0.11"\nprivate_network = ' +
  '"10.0.0.0/24"\nprivate_device = "eth1"\n';
/** A minute for an answer: what fails here fails for what it says. */
const PATIENCE_MS = 60_000;

type Http = Extract<ProbeTarget, { kind: 'http' }>;
const targetOf = (role: 'app' | 'db', name: string, more = ''): Http => {
  const service = parseService(`name = "shop"\nport = 3000\nhealth_path = "/up"\n${more}`, 'shop.toml');
  const config = parseConfig(NODE, role, 'f.toml', role === 'app' ? [service] : []);
  const found = checksFor(config, [{ role: 'db' }], { databaseFound: true }).find(
    (each) => each.name === name,
  )?.target;
  if (found?.kind !== 'http') throw new Error(`no check ${name}`);
  return found;
};

/** Host and statuses of the check in one backend of haproxy.cfg. */
function haproxyAsks(desired: Parameters<typeof render>[0], backend: string): readonly unknown[] {
  const config = render(desired, layout).files.find(({ name }) => name === 'haproxy.cfg')?.content ?? '';
  const [, part = ''] = config.split(`\nbackend ${backend}\n`);
  const own = part.split(/\n(?! )/)[0] ?? '';
  const [, least, most = least] = /http-check expect status (\d+)(?:-(\d+))?/.exec(own) ?? [];
  return [/http-check send .* hdr Host (\S+)/.exec(own)?.[1], Number(least), Number(most)];
}

const daemonAsks = ({ host, statuses }: Http): readonly unknown[] =>
  statuses !== undefined && 'least' in statuses
    ? [host, statuses.least, statuses.most]
    : [host, ...(statuses ?? [])];

t.test('the daemon and HAProxy ask a service the same question', async (t) => {
  const service = { ...app().services[0]!, name: 'shop', localPort: 3000 };
  const table: readonly (readonly [string, Http, readonly unknown[]])[] = [
    ['a service', targetOf('app', 'shop'), haproxyAsks(app({ services: [service] }), 'local_shop')],
    [
      'a service with a name of its own',
      targetOf('app', 'shop', 'health_host = "shop.example.com"\n'),
      haproxyAsks(app({ services: [{ ...service, healthHost: 'shop.example.com' }] }), 'local_shop'),
    ],
    ['the databases', targetOf('app', 'database'), haproxyAsks(app(), 'db_nodes')],
    ['CouchDB', targetOf('db', 'couchdb'), haproxyAsks(db(), 'couchdb')],
  ];
  for (const [what, daemon, haproxy] of table) {
    t.strictSame(daemonAsks(daemon), haproxy, what);
    t.not(haproxy[0], undefined, what);
  }
  t.throws(() => render(app({ services: [{ ...service, healthHost: 'x\n  server evil' }] }), layout));
  for (const host of ['a b', 'x"', '-x', ''])
    t.throws(() => targetOf('app', 'shop', `health_host = '${host}'\n`), { code: 'config-invalid' }, host);
});

t.test('a service that answers only to names that it knows', async (t) => {
  const allowed = new Set(['localhost', 'shop.example.com']);
  const server = createServer((request, response) => {
    const name = (request.headers.host ?? '').replace(/:\d+$/, '');
    response.writeHead(allowed.has(name) ? 200 : 400).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const ask = (more: string) => probe({ ...targetOf('app', 'shop', more), port }, PATIENCE_MS);
  t.match(await ask(''), { passed: true });
  t.match(await ask('health_host = "shop.example.com"\n'), { passed: true });
  t.match(await ask('health_host = "other.example.com"\n'), { passed: false, detail: /^400 in/ });
});

t.test('a CouchDB that asks for a login at /_up is reported with that cause', async (t) => {
  const server = createServer((_request, response) => response.writeHead(401).end());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  for (const [role, name] of [
    ['db', 'couchdb'],
    ['app', 'database'],
  ] as const)
    t.match(await probe({ ...targetOf(role, name), port }, PATIENCE_MS), {
      passed: false,
      detail: /require_valid_user_except_for_up = true instead of require_valid_user/,
    });
});

t.test('a redirect is not healthy unless it is expected, for the daemon as for HAProxy', async (t) => {
  const server = createServer((request, response) => {
    const status = Number(request.url?.slice(1));
    response.writeHead(status, { location: '/login' }).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const ask = (status: number, more = '') =>
    probe({ ...targetOf('app', 'shop', more), port, path: `/${status}` }, PATIENCE_MS);
  for (const status of [301, 302, 303, 307, 308])
    t.match(await ask(status), { passed: false, detail: /^30\d: a redirect.*health_status/ }, String(status));
  for (const status of [200, 204]) t.match(await ask(status), { passed: true }, String(status));
  t.match(await ask(302, 'health_status = [200, 302]\n'), { passed: true });
  t.match(await ask(204, 'health_status = [200, 302]\n'), { passed: false }, 'only what is listed');
  const service = { ...app().services[0]!, name: 'shop', localPort: 3000 };
  const expects = (healthStatus?: readonly number[]): string =>
    /http-check expect status (\S+)/.exec(
      render(app({ services: [healthStatus === undefined ? service : { ...service, healthStatus }] }), layout)
        .files.find(({ name }) => name === 'haproxy.cfg')
        ?.content.split('backend local_shop\n')[1] ?? '',
    )?.[1] ?? '';
  t.equal(expects(), '200-299');
  t.equal(expects([]), '200-299');
  t.equal(expects([200, 302]), '200,302');
  for (const bad of ['[99]', '[600]', '["200"]', '200', `[${Array.from({ length: 11 }, () => 200).join()}]`])
    t.throws(() => targetOf('app', 'shop', `health_status = ${bad}\n`), { code: 'config-invalid' }, bad);
});

t.test('a node depends on a database from the first one that it found on', async (t) => {
  const config = parseConfig(NODE, 'app', 'f.toml', []);
  const required = (databaseFound: boolean, roles: readonly string[]) =>
    checksFor(
      config,
      roles.map((role) => ({ role })),
      { databaseFound },
    ).find(({ name }) => name === 'database')?.required;
  t.equal(required(false, ['app', 'db']), false, 'the first db nodes were just added');
  t.equal(required(true, ['app', 'db']), true);
  t.equal(required(true, ['app']), undefined, 'there is none to look for');
});
