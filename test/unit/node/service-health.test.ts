import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { parseConfig, parseService, type Service } from '../../../src/daemon/config/config.ts';
import { probe } from '../../../src/daemon/health/probe.ts';
import { checksFor } from '../../../src/daemon/node/checks.ts';
import { appInput } from '../../../src/daemon/node/inputs.ts';
import { look } from '../../../src/daemon/node/look.ts';
import { mustBeReloadable } from '../../../src/daemon/process/start-checks.ts';
import { render } from '../../../src/plugins/haproxy/render.ts';
import { appHaproxy } from '../../../src/roles/app.ts';
import { app, layout } from '../plugins/haproxy-cases.ts';
import { believed, EMPTY_MEMORY, scene } from './scenes.ts';

/** The health of a service: one definition in services.d, for the daemon and for HAProxy. */

const NODE =
  '[node]\ncluster = "shop"\nhost = "app1"\n[network]\nprivate_address = "10.0.0.11"\nprivate_network = ' +
  '"10.0.0.0/24"\nprivate_device = "eth1"\n';
const LEAST: Readonly<Record<string, string>> = { name: '"shop"', port: '3000' };
const serviceOf = (keys: Readonly<Record<string, string>>): Service =>
  parseService(
    Object.entries({ ...LEAST, ...keys })
      .map(([key, value]) => `${key} = ${value}\n`)
      .join(''),
    'shop.toml',
  );
const configOf = (service: Service) => parseConfig(NODE, 'app', 'app.toml', [service]);

const checkOf = (service: Service) => {
  const found = checksFor(configOf(service), [], { databaseFound: false }).find(
    ({ name }) => name === 'shop',
  );
  return found ?? { name: 'none' };
};

function haproxyOf(service: Service): string {
  const input = appInput(look(scene([believed('app1/app')], { config: configOf(service) }), EMPTY_MEMORY));
  if (input === undefined) throw new Error('the certificates are there');
  const { files } = render({ ...appHaproxy(input), certificates: app().certificates }, layout);
  return files.find(({ name }) => name === 'haproxy.cfg')?.content ?? '';
}
const localOf = (service: Service): string =>
  haproxyOf(service)
    .split('\nbackend local_shop\n')[1]
    ?.split(/\n(?! )/)[0] ?? '';

/** Another value of each key, and who has to know of it. */
const KEYS: Readonly<Record<string, readonly [value: string, who: 'both' | 'daemon' | 'haproxy']>> = {
  port: ['3001', 'both'],
  path_prefix: ['"/shop"', 'haproxy'],
  health_path: ['"/up"', 'both'],
  health_host: ['"shop.example"', 'both'],
  health_status: ['[200, 302]', 'both'],
  check: ['"tcp"', 'both'],
  health_method: ['"HEAD"', 'both'],
  health_headers: ['{ X-Probe = "yes" }', 'both'],
  health_body: ['\'"status":"ok"\'', 'both'],
  // HAProxy cannot see it: the daemon tells it by the result.
  unit: ['"shop.service"', 'daemon'],
  health_interval_ms: ['5000', 'both'],
  health_fast_interval_ms: ['500', 'both'],
  health_timeout_ms: ['300', 'both'],
  health_rise: ['3', 'both'],
  health_fall: ['1', 'both'],
  required: ['true', 'daemon'],
  local: ['false', 'both'],
  limit_paths: ['["/login"]', 'haproxy'],
  timeout_s: ['30', 'haproxy'],
  max_body_kb: ['64', 'haproxy'],
};

t.test('a reload takes each key of a service, and whoever uses it gets it', async (t) => {
  const base = serviceOf({});
  // Without `limit_paths` it is refused.
  const { limit_per_minute: _perMinute, name: _name, ...keys } = base;
  for (const key of Object.keys(keys)) t.ok(KEYS[key] !== undefined, `${key} is in this table`);
  for (const [key, [value, who]] of Object.entries(KEYS)) {
    const changed = serviceOf({ [key]: value });
    t.doesNotThrow(() => mustBeReloadable(configOf(base), configOf(changed)), key);
    const [daemon, haproxy] = [
      JSON.stringify(checkOf(changed)) !== JSON.stringify(checkOf(base)),
      haproxyOf(changed) !== haproxyOf(base),
    ];
    t.equal(daemon, who !== 'haproxy', `${key}: the daemon`);
    t.equal(haproxy, who !== 'daemon', `${key}: HAProxy`);
  }
});

t.test('a definition has the same form at both', async (t) => {
  const service = serviceOf({
    health_path: '"/up"',
    health_headers: '{ X-Probe = "a b=c", Accept = "*/*" }',
    health_body: '\'"status":"ok"\'',
    ...{ health_interval_ms: '5000', health_timeout_ms: '300', health_rise: '3', health_fall: '1' },
  });
  t.match(checkOf(service), {
    timing: { intervalMs: 5000, timeoutMs: 300, rise: 3, fall: 1 },
    target: { kind: 'http', headers: { 'X-Probe': 'a b=c', Accept: '*/*' }, body: '"status":"ok"' },
  });
  t.equal(
    localOf(service),
    [
      '  option httpchk',
      '  timeout check 300ms',
      "  http-check send meth GET uri /up ver HTTP/1.1 hdr Host localhost hdr X-Probe 'a b=c' hdr Accept '*/*'",
      '  http-check expect status 200-299',
      '  http-check expect string \'"status":"ok"\'',
      '  option log-health-checks',
      '  log ring@failures format raw daemon notice',
      '  retries 2',
      '  option allbackups',
      '  option http-server-close',
      '  http-request disable-l7-retry unless { method GET HEAD OPTIONS }',
      '  http-request set-header X-Bornemisza-Passed-On 1',
      '  server _local 127.0.0.1:3000 check inter 5000ms fastinter 200ms downinter 5000ms fall 1 rise 3 ' +
        'observe layer4 error-limit 1 on-error mark-down',
    ].join('\n'),
  );
  const tcp = serviceOf({ check: '"tcp"' });
  t.match(checkOf(tcp), { target: { kind: 'tcp', address: '127.0.0.1', port: 3000 } });
  t.notMatch(localOf(tcp), /httpchk|http-check/, 'only a connection');
  t.match(localOf(serviceOf({ health_interval_ms: '200' })), /inter 200ms fastinter 200ms/);
  t.match(localOf(serviceOf({})), /check inter 200ms fastinter 200ms downinter 1000ms fall 2 rise 2/);
});

t.test('a definition that cannot work, or that HAProxy would read otherwise, is refused', async (t) => {
  for (const [keys, message] of [
    [{ check: '"tcp"', health_path: '"/up"' }, /health_path: is for check = "http"/],
    [{ check: '"tcp"', health_body: '"ok"' }, /health_body: is for check = "http"/],
    [{ health_method: '"HEAD"', health_body: '"ok"' }, /needs health_method = "GET"/],
    [{ health_method: '"POST"' }, /health_method/],
    [{ health_interval_ms: '500', health_fast_interval_ms: '600' }, /must not be longer than/],
    [{ health_headers: '{ Host = "x" }' }, /Host cannot be set here: use health_host/],
    [{ health_headers: '{ Content-Length = "3" }' }, /Content-Length cannot be set here/],
    [{ health_headers: '{ "X Y" = "z" }' }, /"X Y" is not the name of a header/],
    [{ health_headers: '{ X-A = "1", x-a = "2" }' }, /names a header twice/],
    [{ health_headers: `{ X-A = "a'b" }` }, /the value of X-A must be/],
    [{ health_headers: '{ X-A = "%[src]" }' }, /the value of X-A must be/],
    [{ health_headers: '{ X-A = "a\\nb" }' }, /the value of X-A must be/],
    [
      { health_headers: `{ ${['a', 'b', 'c', 'd'].map((n) => `${n} = "${n.repeat(250)}"`).join()} }` },
      /1000 characters in all at most/,
    ],
    [{ health_body: `"it's"` }, /must not contain a single quote/],
    [{ unit: '"shop"' }, /must be the name of a systemd service/],
    [{ unit: '"../shop.service"' }, /must be the name of a systemd service/],
    [{ health_timeout_ms: '10' }, /health_timeout_ms/],
  ] as const)
    t.throws(() => serviceOf(keys), { code: 'config-invalid', message }, JSON.stringify(keys));
  for (const health of [
    { headers: { 'X-A': "x' server evil" } },
    { headers: { 'X-A\n': 'x' } },
    { headers: { 'X-A': '%[src]' } },
    { body: "'\nbackend x" },
    { timing: { intervalMs: 1.5 } },
    { timing: { fall: 0 } },
  ])
    t.throws(
      () => render(app({ services: [{ ...app().services[0]!, health }] }), layout),
      { code: 'haproxy-value-refused' },
      JSON.stringify(health),
    );
});

t.test('method, headers and body count for the daemon', async (t) => {
  const server = createServer(({ method, headers }, response) => {
    response.writeHead(headers['x-probe'] === 'yes' ? 200 : 403);
    response.end(method === 'HEAD' ? undefined : `{"by":"${method}","status":"ok"}`);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const ask = async (keys: Readonly<Record<string, string>>) => {
    const check = checkOf(serviceOf({ port: String(port), ...keys }));
    if (!('target' in check)) throw new Error('it is checked');
    return await probe(check.target, 60_000);
  };
  const health_headers = '{ X-Probe = "yes" }';
  t.match(await ask({}), { passed: false, detail: /^403/ });
  t.match(await ask({ health_headers }), { passed: true });
  t.match(await ask({ health_headers, health_method: '"HEAD"' }), { passed: true });
  t.match(await ask({ health_headers, health_body: '\'"by":"GET"\'' }), { passed: true });
  t.match(await ask({ health_headers, health_body: '"maintenance"' }), {
    passed: false,
    detail: '200, but without the text of health_body in its first 8192 bytes',
  });
});
