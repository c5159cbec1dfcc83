import t from 'tap';
import { EXPORTER } from '../../../src/plugins/haproxy/optional.ts';
import { DATABASE_SWITCH, REQUEST_LOG, serversIn } from '../../../src/plugins/haproxy/rendered.ts';
import { render } from '../../../src/plugins/haproxy/render.ts';
import { serial } from '../../../src/plugins/haproxy/values.ts';
import { app, db, layout, peer } from './haproxy-cases.ts';

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

t.test('the statistics ask for a password where there is one, and answer nobody where it is lost', (t) => {
  for (const role of [app, db]) {
    const plain = render(role(), layout);
    t.equal(render(role({ statisticsPassword: undefined }), layout).structure, plain.structure);
    const asking = configOf(role({ statisticsPassword: 'twelve-chars' }));
    t.match(asking, /userlist bornemisza_statistics\n {2}user metrics insecure-password twelve-chars\n/);
    t.match(
      asking,
      /frontend stats\n {2}bind .*\n {2}http-request auth realm statistics unless .*\n.*exporter/,
    );
    t.match(
      configOf(role({ statisticsPassword: null })),
      /frontend stats\n {2}bind .*\n {2}http-request deny deny_status/,
    );
    for (const bad of ['short', 'with a blank in it', 'twelve-chars\n  bind :1', 'twelve-chars"'])
      t.throws(() => render(role({ statisticsPassword: bad }), layout), {
        code: 'haproxy-value-refused',
        message: /password/,
      });
    t.throws(
      () => render(role({ statisticsPassword: 'twelve chars' }), layout),
      { message: /^((?!twelve).)*$/ },
      'hidden',
    );
  }
  t.end();
});

t.test('the same input gives the same bytes', async (t) => {
  t.same(render(app(), layout), render(app(), layout));
});

t.test(
  'the edge: TLS with h2, redirect, prefixes longest first, the client’s own headers dropped',
  async (t) => {
    const service = app().services[0]!;
    const site = { ...service, name: 'site', prefix: '/', localPort: 8080 };
    const deep = { ...service, name: 'deep', prefix: '/api/v2' };
    const config = configOf(app({ services: [site, service, deep] }));
    const edge = section(config, 'frontend edge');
    t.match(edge[0], /^bind \*:443 ssl crt \/var\/lib\/x\/app\/node-[0-9a-f]{16}\.pem alpn h2,http\/1\.1$/);
    t.same(
      edge.filter((line) => /^(use_backend|default_backend)/.test(line) && !line.includes('.panic')),
      [
        'use_backend svc_deep if { path /api/v2 } or { path_beg /api/v2/ }',
        'use_backend svc_api if { path /api } or { path_beg /api/ }',
        'default_backend svc_site',
      ],
    );
    t.ok(
      edge.indexOf('http-request del-header X-Forwarded-For') <
        edge.indexOf('http-request set-header X-Forwarded-For %[src]'),
    );
    t.notMatch(config, /Strict-Transport-Security/);
    t.match(
      configOf(app({ edge: { ...app().edge, hstsMaxAgeSeconds: 300 } })),
      /Strict-Transport-Security max-age=300/,
    );
    t.ok(section(config, 'frontend plain').includes('http-request redirect scheme https code 308'));
  },
);

t.test('what a CA asks for is answered before the redirect, and only with a thumbprint of its form', (t) => {
  const plainWith = (challengeThumbprint: string | undefined): string[] =>
    section(configOf(app({ edge: { ...app().edge, challengeThumbprint } })), 'frontend plain');
  const print = `${'aZ0-_'.repeat(8)}abc`;
  const lines = plainWith(print);
  const at = lines.findIndex((line) => line.includes('acme-challenge'));
  t.match(lines[at], `lf-string %[path,field(4,/)].${print} if { path_reg ^/[.]well-known/acme-challenge/`);
  t.ok(at > 0 && at < lines.findIndex((line) => line.includes(' redirect ')), 'before the redirect');
  t.notMatch(plainWith(undefined).join(), /acme/);
  for (const bad of [
    '',
    `${print}a`,
    print.slice(1),
    `${print.slice(1)} `,
    `${print.slice(1)}%`,
    `${print}\n`,
  ])
    t.throws(() => plainWith(bad), { code: 'haproxy-value-refused' }, JSON.stringify(bad));
  t.end();
});

t.test(
  'more than half of the servers without an answer in time: a backend without such checks serves',
  async (t) => {
    const service = app().services[0]!;
    const site = { ...service, name: 'site', prefix: '/' };
    const peers = {
      ...service.peers,
      servers: [
        ...[peer('app1'), peer('app2', 'drain'), peer('app3', 'maint'), peer('app4', 'out-when-down')],
        { ...peer('app5', 'out-when-down'), lastResort: true },
      ],
    };
    const config = configOf(app({ services: [site, { ...service, peers }] }));
    const most = (name: string, well: string) => `{ nbsrv(${name}.panic),sub(txn.${well}) gt 0 }`;
    for (const line of [
      'http-request set-var(txn.well0) nbsrv(svc_api),mul(2)',
      `use_backend svc_api.panic if { path /api } ${most('svc_api', 'well0')} or { path_beg /api/ } ` +
        most('svc_api', 'well0'),
      `use_backend svc_site.panic if ${most('svc_site', 'well1')}`,
    ])
      t.ok(section(config, 'frontend edge').includes(line), line);
    t.ok(
      section(config, 'frontend databases').includes(
        `use_backend db_nodes.panic if ${most('db_nodes', 'well')}`,
      ),
    );
    const panic = section(config, 'backend svc_api.panic');
    const servers = panic.filter((line) => line.startsWith('server '));
    t.same(
      servers.map((line) => [line.split(' ')[1], line.endsWith(' disabled')]),
      [
        ['app1', false],
        ['app2', true],
        ['app3', true],
        ['app4', true],
        ['app5', false],
      ],
      'whoever a record takes out stays out, unless nobody is better',
    );
    for (const line of servers) t.match(line, / ssl verify required .* check port 6984 inter 1s /);
    t.notMatch(panic.join('\n'), /httpchk|http-check|check-ssl/, 'its check is a bare connection');
  },
);

t.test('a door asks a service that is merely slow, and none that answers wrongly', async (t) => {
  const service = app().services[0]!;
  const route =
    'use_backend local_api.panic if { path /api } !{ srv_is_up(local_api/_local) } ' +
    '{ srv_is_up(local_api.panic/_local) } or';
  for (const answersWrongly of [false, true]) {
    const config = configOf(app({ services: [{ ...service, answersWrongly }] }));
    t.ok(section(config, 'frontend door').some((line) => line.startsWith(route)));
    const server = section(config, 'backend local_api.panic').find((line) => line.startsWith('server '));
    t.equal(server?.endsWith(' disabled'), answersWrongly);
  }
  const [slow, wrong] = [false, true].map((answersWrongly) =>
    render(app({ services: [{ ...service, answersWrongly }] }), layout),
  );
  t.equal(slow?.structure, wrong?.structure, 'told at run time');
});

t.test('a door gives what its own instance did not get to the other doors, never to itself', async (t) => {
  const service = app().services[0]!;
  const server = (name: string, n: number, duty: 'ready' | 'drain' | 'maint' | 'out-when-down') => ({
    ...{ name, address: `10.0.0.${n}`, port: 8443, duty, why: '' },
  });
  const servers = [
    server('app1', 11, 'ready'),
    server('app2', 12, 'ready'),
    server('app3', 13, 'drain'),
    server('app4', 14, 'out-when-down'),
  ];
  const config = configOf(app({ services: [{ ...service, peers: { ...service.peers, servers } }] }));
  const lines = section(config, 'backend local_api').filter((line) => line.startsWith('server '));
  t.same(
    lines.map((line) => [
      line.split(' ')[1],
      / backup/.test(line),
      / check /.test(line),
      line.endsWith(' disabled'),
    ]),
    [
      ['_local', false, true, false],
      ['app2', true, false, false],
      ['app3', true, false, true],
      ['app4', true, false, false],
    ],
    'a dead daemon changes nothing',
  );
  t.match(
    section(config, 'frontend edge').join('\n'),
    /del-header X-Bornemisza-Passed-On/,
    'no client sets it',
  );
  const own = section(config, 'backend local_api.own');
  t.same(
    own.filter((line) => line.startsWith('server ')).length,
    1,
    'what one door passes on, the next one does not',
  );
  t.match(own.join('\n'), /retries 0/);
  const slow = section(config, 'backend local_api.panic').filter((line) => line.startsWith('server '));
  t.same(
    slow.map((line) => line.split(' ')[1]),
    ['_local', 'app2', 'app3', 'app4'],
  );
});

t.test('a floating address is bound before it is there', async (t) => {
  const edge = { ...app().edge, addresses: ['192.0.2.7'] };
  t.match(section(configOf(app({ edge })), 'frontend edge')[0], /^bind 192\.0\.2\.7:443 transparent ssl/);
});

t.test('every door asks for a certificate, its role, and that it is not revoked', async (t) => {
  const doors: [string, string[], string][] = [
    ['app', section(configOf(app()), 'frontend door'), '10.0.0.11:8443'],
    ['app', section(configOf(db()), 'frontend app_door'), '10.0.0.21:6984'],
    ['db', section(configOf(db()), 'frontend peer_door'), '10.0.0.21:6985'],
  ];
  for (const [role, lines, bind] of doors) {
    t.match(lines[0], new RegExp(`^bind ${bind} ssl crt \\S+ ca-file \\S+ verify required`), bind);
    t.equal(lines[1], 'http-request reject if { ssl_c_serial,hex -f /var/lib/x/app/revoked.list }');
    t.match(lines[2], /^http-request reject if \{ ssl_c_i_dn\(CN\).* !\{ ssl_c_der,sha2\(256\)/);
    t.equal(lines[3], `http-request deny deny_status 403 unless { ssl_c_s_dn(OU) -m str ${role} }`);
  }
});

t.test('CouchDB counts wrong passwords by the client, not by the door', async (t) => {
  const set = 'http-request set-header X-Forwarded-For %[src]';
  t.ok(section(configOf(db()), 'frontend app_door').includes(set), 'whatever the client said');
  const fromPeer = `${set} unless { req.hdr(X-Forwarded-For) -m found }`;
  t.ok(section(configOf(db()), 'frontend peer_door').includes(fromPeer), 'a peer door hands it on');
});

t.test('whether hosts answer is asked with bare connections, which carry nothing', async (t) => {
  const desired = app({
    doors: { verifySuffix: 'app.shop.internal', servers: [peer('app2'), peer('app3', 'maint')] },
  });
  const config = configOf(desired);
  for (const [backend, names] of [
    ['door.watch', ['app2', 'app3']],
    ['db_nodes.watch', ['db1', 'db2']],
  ] as const) {
    const lines = section(config, `backend ${backend}`);
    t.match(lines, ['no log', 'option log-health-checks', /^log ring@failures /]);
    t.match(
      lines.slice(3),
      names.map((name) => new RegExp(`^server ${name} \\S+ check inter 200ms (?!.*(ssl|port))`)),
    );
    t.notMatch(config, new RegExp(`_backend ${backend.replace('.', '[.]')}`));
  }
  t.notMatch(section(config, 'backend door.watch').at(-1), / disabled/, 'also one in maintenance');
});

t.test('every peer is reached with mutual TLS and by its own name', async (t) => {
  for (const desired of [app(), db()]) {
    const switches: readonly string[] = [DATABASE_SWITCH.backend, REQUEST_LOG.backend];
    const peers = render(desired, layout).servers.filter(
      (each) => each.peer && !switches.includes(each.backend) && !each.backend.endsWith('.watch'),
    );
    for (const server of peers) {
      const [role, name] = [server.name.replace(/\d/, ''), server.name];
      t.match(
        server.options,
        new RegExp(
          `ssl verify required ca-file \\S+ crt \\S+ verifyhost ${name}\\.${role}\\.shop\\.internal `,
        ),
      );
    }
  }
});

t.test(
  'failover of a db node: the local one first, peers as backups by their local-only door, /_up never',
  async (t) => {
    const config = configOf(db());
    const servers = section(config, 'backend couchdb').filter((line) => line.startsWith('server '));
    t.match(servers, [
      /^server _local 127\.0\.0\.1:15984 (?!.*backup)/,
      /^server db2 10\.0\.0\.2:6985 .* backup$/,
    ]);
    t.ok(section(config, 'frontend app_door').includes('use_backend couchdb_local if { path /_up }'));
    t.ok(section(config, 'frontend peer_door').includes('default_backend couchdb_local'));
    t.equal(section(config, 'backend couchdb_local').filter((line) => line.startsWith('server ')).length, 1);
  },
);

t.test(
  'creating and deleting databases is refused at both doors of a db node while not all agree',
  async (t) => {
    const refused = db({ databases: { given: false, why: 'not connected: db3/db' } });
    const given = render(db(), layout);
    t.equal(render(refused, layout).structure, given.structure, 'no reload');
    t.same(section(configOf(db()), 'backend permissions'), [
      'no log',
      'stick-table type string size 1 expire 30s',
      'server databases 127.0.0.1:15984 no-check',
    ]);
    t.same(section(configOf(refused), 'backend permissions'), [
      'no log',
      'stick-table type string size 1 expire 30s',
      'server databases 127.0.0.1:15984 no-check disabled',
    ]);
    for (const door of ['app_door', 'peer_door']) {
      const lines = section(configOf(db()), `frontend ${door}`);
      const refusals = lines.filter((line) => line.startsWith('http-request return status 503 '));
      t.equal(refusals.length, 4, door);
      for (const [index, line] of refusals.entries()) {
        const body: unknown = JSON.parse(/ string '([^']*)' if /.exec(line)?.[1] ?? '');
        const silent = index < 2;
        const reason = silent ? /10\.0\.0\.21 has not reported.*bornemisza@db/ : /bornemisza status/;
        t.match(body, { error: 'service unavailable', reason });
        t.match(line, ' content-type application/json hdr Retry-After 5 ');
        t.ok(
          line.endsWith(
            silent ? ' !{ str(databases),in_table(permissions) }' : ' { nbsrv(permissions) eq 0 }',
          ),
          line,
        );
      }
      t.ok(lines.indexOf(refusals[3] ?? '') < lines.findIndex((line) => line.startsWith('default_backend')));
    }
    t.notMatch(configOf(app()), 'permissions', 'an app node only hands on');
  },
);

t.test(
  'nothing but certificates and the doors’ own sockets is public: stats, databases and doors are private',
  async (t) => {
    const publicBinds = configOf(app())
      .split('\n')
      .filter((line) => /^\s*bind \*/.test(line));
    t.match(publicBinds, [/\*:80$/, /\*:443 ssl/]);
    t.ok(section(configOf(app()), 'frontend databases').includes('bind 127.0.0.1:5984'));
    t.ok(section(configOf(app()), 'frontend stats').includes('bind 10.0.0.11:8404'));
  },
);

t.test('HAProxy’s own metrics are beside its statistics, where it has them', async (t) => {
  for (const desired of [app(), db()]) {
    const lines = section(configOf(desired), 'frontend stats');
    t.equal(lines[1], EXPORTER);
    t.ok(lines.indexOf(EXPORTER) < lines.indexOf('stats uri /'), 'before the page, which takes every path');
    const without = render(desired, layout, new Set([EXPORTER])).files.at(-1)?.content ?? '';
    t.notMatch(without, 'prometheus');
  }
});

t.test('each peer has a second check that is faster, and off until it is needed', async (t) => {
  const { servers } = render(
    app({ databases: { ...app().databases, servers: [peer('db1'), peer('db2', 'out-when-down')] } }),
    layout,
  );
  const twins = servers.filter(({ backend }) => backend === 'db_nodes.unwatched');
  t.same(
    twins.map(({ name, duty }) => [name, duty]),
    [
      ['db1', 'maint'],
      ['db2', 'ready'],
    ],
  );
  t.match(twins[0]?.options, /inter 300ms/);
  t.match(servers.find(({ backend }) => backend === 'db_nodes')?.options, /inter 1s/);
});

t.test('what the runtime API can change is not structure; everything else is', async (t) => {
  const base = render(app(), layout).structure;
  const withServers = (...servers: ReturnType<typeof peer>[]) =>
    app({ databases: { ...app().databases, servers } });
  const same: [string, Parameters<typeof render>[0]][] = [
    ['a new member', withServers(peer('db1'), peer('db2'), peer('db3'))],
    ['the last but one', withServers(peer('db1'))],
    ['a duty', withServers(peer('db1', 'maint'), peer('db2', 'drain'))],
    ['an address', withServers({ ...peer('db1'), address: '10.0.0.99' }, peer('db2'))],
    ['a revocation', app({ revoked: [{ serialHex: 'ab', address: undefined }] })],
    ['a removed authority', app({ revokedAuthorities: ['AbCdEfGh'], knownCertificates: ['A'.repeat(64)] })],
    ['a reason', withServers(peer('db1', 'ready', 'else'), peer('db2'))],
  ];
  for (const [what, desired] of same) t.equal(render(desired, layout).structure, base, what);
  const other: [string, Parameters<typeof render>[0]][] = [
    // Whether the site needs a database at all is part of what the edge answers at its `serves` path.
    ['no database at all', withServers()],
    ['a certificate', app({ certificates: { ...app().certificates, ca: app().certificates.node } })],
    ['a port', app({ doorPort: 9443 })],
    ['a service', app({ services: [] })],
    [
      'whose certificates are trusted',
      app({ databases: { ...app().databases, verifySuffix: 'db.other.internal' } }),
    ],
  ];
  for (const [what, desired] of other) t.not(render(desired, layout).structure, base, what);
});

t.test('certificates are named by their content, so the last good configuration keeps its own', async (t) => {
  const names = (desired: Parameters<typeof render>[0]) =>
    render(desired, layout).files.map(({ name }) => name);
  t.match(names(app()), [/^node-/, /^ca-/, 'revoked.list', 'haproxy.cfg']);
  const edge = '-----BEGIN CERTIFICATE-----\nZWRnZQ==\n-----END CERTIFICATE-----\n';
  const withEdge = app({ certificates: { ...app().certificates, edge } });
  t.match(names(withEdge), [/^node-/, /^ca-/, /^edge-/, 'revoked.list', 'haproxy.cfg']);
  t.match(section(configOf(withEdge), 'frontend edge')[0], /crt \S+\/edge-/);
});

t.test('the first page of an edge without a service says what to do', async (t) => {
  const [page = '', other] = section(configOf(app({ services: [] })), 'backend nothing');
  t.match(
    page,
    /^http-request return status 404 content-type text\/html string "[^"]*services\.d[^"]*" if \{ path \/ \}$/,
  );
  t.equal(other, 'http-request return status 404');
});

t.test('serials are written as HAProxy gives them', async (t) => {
  const cases: [string, string][] = [
    ['ab12', 'AB12'],
    ['f00d', 'F00D'],
    ['1', '01'],
    ['00f00d', 'F00D'],
    ['0f', '0F'],
    ['00', '00'],
  ];
  for (const [given, written] of cases) t.equal(serial(given), written, given);
});

t.test('hostile values are refused with a code, and nothing is rendered', async (t) => {
  const name = (value: string) =>
    app({ databases: { ...app().databases, servers: [{ ...peer('db1'), name: value }] } });
  const service = (changes: object) => app({ services: [{ ...app().services[0]!, ...changes }] });
  const cases: [string, Parameters<typeof render>[0]][] = [
    ['newline in a name', name('db1\n  server evil 6.6.6.6:1')],
    ['space in a name', name('db1 check')],
    ['quote in a name', name('db1"')],
    ['semicolon in a name', name('db1;shutdown')],
    ['empty name', name('')],
    ['a name of 64 characters', name('x'.repeat(64))],
    ['our own server’s name', name('_local')],
    ['address that is a name', app({ privateAddress: 'localhost' })],
    ['address with more', app({ privateAddress: '10.0.0.1 transparent' })],
    ['port 0', app({ doorPort: 0 })],
    ['port with a fraction', app({ doorPort: 80.5 })],
    ['service name with a slash', service({ name: '../x' })],
    ['prefix with a space', service({ prefix: '/api if TRUE' })],
    ['prefix with a brace', service({ prefix: '/api}' })],
    ['prefix with a variable', service({ prefix: '/$HOME' })],
    ['prefix without a slash', service({ prefix: 'api' })],
    ['health path with a newline', service({ healthPath: '/x\nhttp-check' })],
    ['suffix with a space', app({ databases: { ...app().databases, verifySuffix: 'db.x verify none' } })],
    ['serial with a space', app({ revoked: [{ serialHex: 'ab cd', address: undefined }] })],
    ['authority with a space', app({ revokedAuthorities: ['ab cd'] })],
    ['fingerprint with a newline', app({ knownCertificates: [`${'A'.repeat(63)}\n`] })],
    ['a path for a certificate', app({ certificates: { ...app().certificates, node: '/etc/shadow' } })],
    [
      'a certificate with a NUL',
      app({ certificates: { ...app().certificates, node: '-----BEGIN X-----\n\0\n-----END X-----\n' } }),
    ],
  ];
  for (const [what, desired] of cases) {
    t.throws(() => render(desired, layout), { code: 'haproxy-value-refused', outcome: 'terminal' }, what);
  }
});

t.test('a refused key is not shown', async (t) => {
  const node = '-----BEGIN PRIVATE KEY-----\nTOPSECRET\0\n-----END PRIVATE KEY-----\n';
  t.throws(() => render(app({ certificates: { ...app().certificates, node } }), layout), {
    message: /^(?!.*TOPSECRET)/,
  });
});

t.test('the servers of a file that was rendered are read back as they were', async (t) => {
  const rendered = render(
    app({ databases: { ...app().databases, servers: [peer('db1'), peer('db2', 'maint')] } }),
    layout,
  );
  const config = rendered.files.find(({ name }) => name === 'haproxy.cfg')?.content ?? '';
  const facts = (servers: typeof rendered.servers) =>
    servers.map(({ backend, name, address, port, options, duty, peer }) => ({
      backend,
      name,
      address,
      port,
      options,
      duty,
      peer,
    }));
  const sorted = (servers: typeof rendered.servers) =>
    facts(servers).toSorted((a, b) => (a.backend + a.name < b.backend + b.name ? -1 : 1));
  t.same(sorted(serversIn(config)), sorted(rendered.servers));
});
