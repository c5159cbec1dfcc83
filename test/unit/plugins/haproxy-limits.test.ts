import t from 'tap';
import { render } from '../../../src/plugins/haproxy/render.ts';
import { app, layout } from './haproxy-cases.ts';

const configOf = (desired: Parameters<typeof render>[0]): string =>
  render(desired, layout).files.find(({ name }) => name === 'haproxy.cfg')?.content ?? '';

/** The lines of one section. */
function section(config: string, head: string): string[] {
  const lines = config.split('\n');
  const start = lines.indexOf(head);
  if (start < 0) return [];
  const end = lines.findIndex((line, index) => index > start && !line.startsWith('  '));
  return lines.slice(start + 1, end).map((line) => line.trim());
}

t.test('a bound of a service is in every backend that its requests pass, and a reload', (t) => {
  const { structure: base } = render(app(), layout);
  const withBounds = (bounds: object) =>
    app({ services: app().services.map((each) => ({ ...each, ...bounds })) });
  for (const bounds of [{ timeoutSeconds: 7 }, { maxBodyKb: 7 }])
    t.not(render(withBounds(bounds), layout).structure, base, JSON.stringify(bounds));
  const backends = configOf(withBounds({ timeoutSeconds: 7, maxBodyKb: 3 })).split(/\n(?=backend )/);
  const having = (pattern: RegExp): string[] =>
    backends.filter((each) => pattern.test(each)).map((each) => /^backend (\S+)/.exec(each)?.[1] ?? '');
  t.strictSame(having(/^ {2}timeout server 7s$/m), [
    'svc_api',
    'svc_api.panic',
    'local_api',
    'local_api.panic',
    'local_api.own',
  ]);
  t.strictSame(having(/status 413 .* gt 3072 }$/m), ['svc_api', 'svc_api.panic'], 'the edge has all of them');
  for (const bad of [
    { timeoutSeconds: 0 },
    { timeoutSeconds: 901 },
    { maxBodyKb: 0.5 },
    { maxBodyKb: Number.NaN },
  ])
    t.throws(() => render(withBounds(bad), layout), { code: 'haproxy-value-refused' });
  t.end();
});

t.test('what a client network sends is counted where it is served, and edges share it', async (t) => {
  const limit = { paths: ['/api/session', '/api/me'], perMinute: 10 };
  const services = [{ ...app().services[0]!, limit }];
  const sharing = {
    host: 'app1',
    port: 8444,
    verifySuffix: 'app.shop.internal',
    edges: [
      { name: 'app3', address: '10.0.0.13' },
      { name: 'app2', address: '10.0.0.12' },
    ],
  };
  const config = configOf(app({ services, sharing }));
  for (const backend of ['svc_api', 'svc_api.panic'])
    t.match(
      section(config, `backend ${backend}`).filter((line) => /sc0|gpc0/.test(line)),
      [
        /^http-request track-sc0 src,ipmask\(32,64\) table limit_api if !\{ method GET HEAD OPTIONS \}/,
        /^http-request return status 429 .* if \{ sc_gpc0_rate\(0\) ge 10 \}$/,
        'http-request sc-inc-gpc0(0)',
      ],
      backend,
    );
  t.match(section(config, 'backend limit_api'), [/^stick-table type ipv6 .* peers edges$/]);
  const edges = section(config, 'peers edges');
  t.same(edges.slice(0, 2), ['bind unix@/run/x/app/edges.sock mode 600', 'server app1']);
  t.match(edges.slice(2), [
    /^server app2 10\.0\.0\.12:8444 ssl verify required .* verifyhost app2\.app\.shop\.internal$/,
    /^server app3 10\.0\.0\.13:8444/,
  ]);
  const door = section(config, 'frontend edges_door');
  t.match(door[3], /^bind 10\.0\.0\.11:8444 ssl crt \S+ ca-file \S+ verify required$/);
  t.equal(door[4], 'tcp-request content reject if { ssl_c_serial,hex -f /var/lib/x/app/revoked.list }');
  t.match(door[5], /^tcp-request content reject if \{ ssl_c_i_dn\(CN\)/);
  t.equal(door[6], 'tcp-request content reject if !{ ssl_c_s_dn(OU) -m str app }');
  t.ok(section(config, 'global').includes('localpeer app1'));

  t.notMatch(configOf(app({ sharing: undefined })), /peers|limit_|localpeer|8444/, 'nothing without a limit');
  const alone = configOf(app({ services }));
  t.match(
    section(alone, 'backend limit_api'),
    [/gpc0_rate\(1m\)$/],
    'an edge that knows no other counts alone',
  );
  t.notMatch(alone, /^peers|localpeer/m);
});

t.test('a limit that HAProxy could read as more than a limit is refused', async (t) => {
  const limits: readonly (readonly [what: string, paths: string[], perMinute: number])[] = [
    ['a path with a space', ['/a if TRUE'], 1],
    ['a path without a slash', ['a'], 1],
    ['no request at all', ['/a'], 0],
    ['a fraction', ['/a'], 1.5],
    ['more than a table counts', ['/a'], 100_001],
  ];
  for (const [what, paths, perMinute] of limits) {
    const services = [{ ...app().services[0]!, limit: { paths, perMinute } }];
    t.throws(() => render(app({ services }), layout), { code: 'haproxy-value-refused' }, what);
  }
});
