import t from 'tap';
import type { Snippets } from '../../../src/plugins/haproxy/desired.ts';
import { planRuntime } from '../../../src/plugins/haproxy/plan.ts';
import { render } from '../../../src/plugins/haproxy/render.ts';
import { serversIn } from '../../../src/plugins/haproxy/rendered.ts';
import { unbindable } from '../../../src/plugins/haproxy/snippet-binds.ts';
import { isOurs, wordsOf } from '../../../src/plugins/haproxy/snippet-lines.ts';
import {
  blamedFor,
  chooseSnippets,
  complaintIn,
  refusedOf,
  statesFor,
  type UsedSnippet,
  withSnippets,
} from '../../../src/plugins/haproxy/snippets.ts';
import { app, db, layout, runningAs } from './haproxy-cases.ts';

const FOLDER = '/etc/bornemisza/haproxy.d';
const given = (files: Readonly<Record<string, string>>, readMs = 1): Snippets => ({
  readMs,
  ports: [80, 443, 8404],
  files: Object.entries(files).map(([name, text]) => ({ file: `${FOLDER}/${name}`, text })),
});
const chosen = (files: Readonly<Record<string, string>>) => chooseSnippets(given(files));
const configOf = (used: readonly UsedSnippet[]): string =>
  render(app(), layout, new Set(), used).files.find(({ name }) => name === 'haproxy.cfg')?.content ?? '';
const lineOf = (config: string, text: string): number =>
  config.split('\n').findIndex((line) => line.includes(text)) + 1;

const LEGACY = `# The shop of last year
frontend edge
  http-request redirect location https://new.example code 301 if { hdr(host) old.example }
  use_backend legacy if { path_beg /legacy }

backend legacy
  server one 10.0.0.50:8080 check

frontend plain-door
  bind 10.0.0.11:9000,:9001-9003
  default_backend legacy
`;

t.test('a line is read as HAProxy reads it', (t) => {
  for (const [line, words] of [
    ['  acl  a path /x # y', ['acl', 'a', 'path', '/x']],
    ['use_backend "a b" if \'c "d\'', ['use_backend', 'a b', 'if', 'c "d']],
    ['gl\\ob"al" x\\x41', ['global', 'xA']],
    ['lua""-load \\"q\\"', ['lua-load', '"q"']],
    ['"" x', ['', 'x']],
    ['a#b', ['a']],
    ['   # only a comment', []],
    ['', []],
    ['end\\', ['end']],
  ] as const)
    t.strictSame(wordsOf(line), words, line);
  t.end();
});

t.test('a good one is in the file: in the edge before its routes, and its sections at the end', (t) => {
  const { used, alarms } = chosen({ 'legacy.cfg': LEGACY });
  t.strictSame(alarms, []);
  const config = configOf(used);
  const edge = config.slice(config.indexOf('frontend edge'), config.indexOf('frontend door'));
  t.match(
    edge,
    /max-age|X-Forwarded-Host[^]*http-request redirect location[^]*use_backend legacy if[^]*svc_api/,
  );
  t.ok(config.indexOf('\nbackend legacy') > config.indexOf('frontend stats'));
  t.notMatch(config, /last year/, 'comments are left out');
  t.equal(
    withSnippets(config).trimEnd(),
    configOf([])
      .replace(/-[0-9a-f]{16}$/m, config.match(/-[0-9a-f]{16}$/m)?.[0] ?? '')
      .trimEnd(),
  );
  t.end();
});

t.test('other text is another structure; another comment is none', (t) => {
  const structure = (text: string): string =>
    render(app(), layout, new Set(), chosen({ 'a.cfg': text }).used).structure;
  t.not(structure(LEGACY), render(app(), layout).structure);
  t.not(structure(LEGACY), structure(LEGACY.replace('8080', '8081')));
  t.equal(structure(LEGACY), structure(`# more\n\n${LEGACY}`), 'no reload');
  t.end();
});

const EDGE = 'frontend edge\n';
const BACK = 'backend b\n';
const refused: readonly (readonly [what: string, text: string, line: number, why: RegExp])[] = [
  ['global', 'global\n  maxconn 1\n', 1, /section "global" is not possible/],
  ['global below another section', `${BACK}  global\n`, 2, /section "global"/],
  ['defaults', 'defaults\n  timeout client 1s\n', 1, /section "defaults"/],
  ['a program', 'program x\n  command /bin/sh\n', 1, /section "program"/],
  ['peers', 'peers p\n', 1, /section "peers"/],
  ['a section of a later release', 'acme x\n', 1, /section "acme"/],
  ['a keyword in quotes', '"global"\n', 1, /begins with a keyword/],
  ['a keyword with a backslash', 'gl\\obal\n', 1, /begins with a keyword/],
  ['a condition around our sections', '.if false\n', 1, /begins with a keyword of letters, not with "\.if/],
  ['Lua by an action', `${EDGE}http-request lua.x\n`, 2, /Lua/],
  ['Lua by a service', 'frontend f\n http-request use-service "lua".x\n', 2, /Lua/],
  ['a check that is a program', `${BACK}  option external-check\n`, 2, /runs a program/],
  ['mails', `${BACK}  email-alert to x@example\n`, 2, /mailers/],
  ['an agent', 'frontend f\n  filter spoe config /x\n', 2, /filter spoe/],
  ['administration by the page', 'listen l\n  stats admin if TRUE\n', 2, /stats admin/],
  [
    'a list of ours',
    `${EDGE}http-request del-acl(/var/lib/bornemisza/haproxy/app/revoked.list) x\n`,
    2,
    /file of/,
  ],
  [
    'a socket of ours',
    `${BACK}  server x unix@/run//bornemisza-app/operator.sock\n`,
    2,
    /file of Bornemisza/,
  ],
  ['a name of ours', 'backend svc_shop\n', 1, /"svc_shop" is ours/],
  ['a name of ours in quotes', 'listen "stats"\n', 1, /"stats" is ours/],
  ['a name that ends as ours do', 'backend x.panic\n', 1, /is ours/],
  ['no section', 'server a 10.0.0.1:80\n', 1, /in no section/],
  ['a bind of the edge', `${EDGE}  bind :9000\n`, 2, /"bind" is not possible in our "frontend edge"/],
  ['another default of the edge', `${EDGE}  default_backend b\n`, 2, /not possible/],
  ['a counter of ours', `${EDGE}  http-request track-sc0 src table t\n`, 2, /track-sc2/],
  ['something behind the edge', 'frontend edge from x\n', 1, /nothing behind/],
  ['a port of ours', 'frontend f\n  bind 10.9.9.9:443\n', 2, /port 443 is one of ours/],
  ['a range with a port of ours', 'frontend f\n  bind :8400-8410\n', 2, /port 8404 is/],
  ['a port from a variable', 'frontend f\n  bind ":${P}"\n', 2, /port in digits/],
  ['a socket of another process', 'frontend f\n  bind fd@3\n', 2, /port in digits/],
  ['one port twice', 'frontend f\n  bind :9000\n bind 10.0.0.1:9000\n', 3, /is there twice/],
  ['a control character', `${BACK}  server\u0000 x\n`, 2, /control character/],
];

t.test('what would widen rights or touch what is ours is refused, with file, line and reason', (t) => {
  for (const [what, text, line, why] of refused) {
    const { used, alarms } = chosen({ 'a.cfg': text, 'good.cfg': LEGACY });
    t.strictSame(
      used.map(({ name }) => name),
      ['good.cfg'],
      `${what}: the good one beside it stays`,
    );
    t.match(
      alarms,
      [
        {
          code: 'haproxy-snippet-refused',
          message: new RegExp(`^${FOLDER}/a.cfg:${line} is left out.*${why.source}`),
        },
      ],
      what,
    );
  }
  t.match(chosen({ 'a b.cfg': BACK }).alarms, [{ message: /a b.cfg is left out.*its name/ }]);
  t.end();
});

t.test('what two files cannot both have is refused in the second', (t) => {
  const bind = 'frontend NAME\n  bind 10.0.0.11:9000\n';
  const acl = `${EDGE}  acl old hdr(host) NAME\n  acl old hdr(host) more\n`;
  for (const text of [bind, acl]) {
    const of = (name: string): string => text.replace('NAME', name);
    const { used, alarms } = chosen({ 'a.cfg': of('a'), 'b.cfg': of('b') });
    t.strictSame([used.map(({ name }) => name), alarms.length], [['a.cfg'], 1], text);
    t.match(alarms[0]?.message, /b\.cfg:2 .*(there twice|acl "old")/);
  }
  const other = chosen({
    'a.cfg': bind,
    'b.cfg': bind.replaceAll('10.0.0.11', '10.0.0.12').replace('NAME', 'x'),
  });
  t.equal(other.used.length, 2, 'one port of two addresses');
  t.end();
});

t.test('what is harmless passes: text of marks, Windows lines, a byte order mark, quotes', (t) => {
  const text = [
    '\uFEFF# snippet other.cfg line 1',
    'backend b # end of snippet',
    '# end of snippet',
    '  http-request return status 503 content-type text/html string "<h1>It\\\'s # closed</h1>"',
    '  server LAST 10.0.0.9:80',
    '# snippet b.cfg line 7',
    'userlist team',
    '  user a insecure-password global',
    '',
  ].join('\r\n');
  const { used, alarms } = chosen({ 'a.cfg': text });
  t.strictSame(alarms, []);
  const config = configOf(used);
  t.equal(config.includes('\r'), false);
  t.equal(withSnippets(config).includes('LAST'), false, 'the marks of ours are the only ones');
  t.equal(withSnippets(config).includes('userlist'), false);
  t.strictSame(
    serversIn(config).filter(({ name }) => name === 'LAST'),
    [],
  );
  t.end();
});

t.test('every name of ours is ours', (t) => {
  const limit = { paths: ['/api'], perMinute: 3 };
  const sharing = { host: 'app1', port: 8444, verifySuffix: 'app.shop.internal', edges: [] };
  const services = app().services.map((service) => ({ ...service, limit }));
  for (const desired of [app({ services, sharing }), db()]) {
    const { backends, frontends } = render(desired, layout);
    t.strictSame(
      [...backends, ...frontends].filter((name) => !isOurs(name)),
      [],
      desired.instance,
    );
  }
  for (const name of ['legacy', 'api', 'svc', 'my_stats', 'doors']) t.notOk(isOurs(name), name);
  t.end();
});

t.test('the servers of a snippet are not touched, and not restored by a rollback', (t) => {
  const rendered = render(app(), layout, new Set(), chosen({ 'legacy.cfg': LEGACY }).used);
  const config = rendered.files.find(({ name }) => name === 'haproxy.cfg')?.content ?? '';
  t.notOk(serversIn(config).some(({ backend }) => backend === 'legacy'));
  t.notOk(serversIn(config).some(({ name }) => name === 'one'));
  const same = runningAs(rendered);
  const foreign = {
    ...(same.servers[0] as (typeof same.servers)[0]),
    backend: 'legacy',
    name: 'one',
    fullWeight: false,
  };
  const gone = { ...foreign, backend: 'db_nodes', name: 'db9' };
  const changes = planRuntime(rendered, { ...same, servers: [...same.servers, foreign, gone] });
  t.strictSame(
    changes.map(({ summary }) => summary),
    ['db_nodes/db9: removed (not a member)'],
  );
  t.end();
});

t.test('a new process learns of a server of a snippet only what is still true', (t) => {
  const { used } = chosen({ 'a.cfg': LEGACY, 'b.cfg': 'listen b\n  server two [2001:db8::1]:80 check\n' });
  const states = (port: number): string =>
    [
      '1',
      '# be_id be_name srv_id srv_name srv_addr srv_op_state srv_port',
      `7 db_nodes 1 db1 10.0.0.1 2 ${port}`,
      `8 legacy 1 one 10.0.0.50 2 ${port}`,
      `9 b 1 two 2001:db8::1 0 ${port}`,
    ].join('\n');
  const ours = new Set(['db_nodes']);
  const kept = (port: number): string[] =>
    [...statesFor(states(port), configOf(used), ours).matchAll(/^\d \S+/gm)].map(([each]) => each);
  t.strictSame(kept(8080), ['7 db_nodes', '8 legacy']);
  t.strictSame(kept(80), ['7 db_nodes', '9 b']);
  t.match(statesFor(states(80), configOf([]), ours), /^1\n# be_id/);
  t.end();
});

t.test('a port of another program, or an address of another host, is seen before a reload', (t) => {
  const bind = (where: string, name = 'mine'): string => `frontend ${name}\n\n  bind ${where}\n`;
  const free = { former: configOf([]), running: new Set<string>(), sockets: [], addresses: ['10.0.0.11'] };
  const sockets = [{ address: '10.0.0.11', port: 9000, uid: 1 }];
  const said = (files: Readonly<Record<string, string>>, of: Partial<Parameters<typeof unbindable>[1]>) =>
    [...unbindable(chosen(files).used, { ...free, ...of })].map(
      ([{ name }, { line, why }]) => `${name}:${line} ${why}`,
    );
  const taken = ["a.cfg:3 another program listens on port 9000: `ss -ltnp 'sport = :9000'`"];
  const files = { 'a.cfg': bind(':8999-9001') };
  t.strictSame(said({ ...files, 'b.cfg': bind(':9002', 'b') }, { sockets }), taken);
  t.strictSame(said({ 'a.cfg': bind('10.0.0.12:9000') }, { sockets, addresses: ['10.0.0.12'] }), []);
  t.strictSame(said({ 'a.cfg': bind('10.0.0.11:9000') }, { sockets }), taken);
  const former = configOf(chosen(files).used);
  t.strictSame(
    said({ 'renamed.cfg': bind(':9000') }, { sockets, former }),
    [],
    'HAProxy itself listens there',
  );
  t.strictSame(said(files, { sockets, running: new Set(['mine']) }), [], 'and is older than its file');
  t.strictSame(
    said(
      { 'a.cfg': bind(':9000') },
      { sockets, former: configOf(chosen({ 'a.cfg': bind(':8') }).used), running: new Set(['mine']) },
    ),
    taken,
    'another port of its own frontend',
  );
  t.match(said({ 'a.cfg': bind('10.0.0.99:9000') }, {}), [
    /^a\.cfg:3 10\.0\.0\.99 is not an address of this host now/,
  ]);
  for (const where of [
    '10.0.0.99:9000 transparent',
    '10.0.0.11:9000',
    '127.0.0.9:9000',
    ':9000',
    '/run/x/y.sock',
  ])
    t.strictSame(said({ 'a.cfg': bind(where) }, {}), [], where);
  t.end();
});

t.test('what HAProxy reports gets file and line of the snippet', (t) => {
  const { used } = chosen({ 'a.cfg': LEGACY, 'b.cfg': `${BACK}  servr x\n` });
  const config = configOf(used);
  const path = '/var/lib/x/app/.haproxy.cfg.1.cfg';
  const said = [
    `parsing [${path}:${lineOf(config, 'servr x')}] : unknown keyword 'servr' in 'backend' section`,
    `parsing [${path}:${lineOf(config, 'server one')}] : 'server one' : unknown keyword 'chec'; see ${path}`,
    'Error(s) found in configuration file',
  ];
  const about = (name: string) => complaintIn(said, { config, path, name });
  t.strictSame(about('b.cfg'), {
    line: 2,
    why: "HAProxy says: unknown keyword 'servr' in 'backend' section",
  });
  t.strictSame(about('a.cfg'), {
    line: 7,
    why: "HAProxy says: 'server one' : unknown keyword 'chec'; see haproxy.cfg",
  });
  t.equal(about('c.cfg'), undefined);
  t.equal(complaintIn(said.slice(2), { config, path, name: 'a.cfg' }), undefined);
  t.end();
});

t.test('each is tried beside those that HAProxy took, again while that helps', async (t) => {
  const needs: Readonly<Record<string, readonly string[]>> = { a: ['c'], b: ['x'], c: [], d: ['c', 'b'] };
  const asked: string[] = [];
  const refusals = await refusedOf(['a', 'b', 'c', 'd'], async (one, beside) => {
    asked.push(beside.join(''));
    const missing = needs[one]?.find((each) => !beside.includes(each));
    return missing === undefined ? undefined : { why: `needs ${missing}` };
  });
  t.strictSame(
    [...refusals],
    [
      ['b', { why: 'needs x' }],
      ['d', { why: 'needs b' }],
    ],
  );
  t.strictSame(asked.slice(0, 7), ['a', 'b', 'c', 'cd', 'ac', 'abc', 'acd']);
  t.equal(asked.length, 9, 'and once more, as a was taken since');
});

t.test('a process that does not start: the snippet that HAProxy names, else every new one', (t) => {
  const old = { 'a.cfg': LEGACY, 'b.cfg': BACK };
  const { used } = chosen({
    ...old,
    'new.cfg': 'backend new\n',
    'c.cfg': 'listen c\n  bind 10.0.0.9:9\n',
    'd.cfg': 'listen d\n  bind :9100\n',
  });
  const [former, config] = [configOf(chosen(old).used), configOf(used)];
  const path = '/var/lib/x/app/haproxy.cfg';
  const names = (said: readonly string[]): string[] =>
    [...blamedFor(used, { former, config, said, path, unit: 'u' })].map(
      ([{ name }, { line, why }]) => `${name}:${line ?? '-'} ${why}`,
    );
  t.match(names([]), [/^c\.cfg:- HAProxy does not start with the new snippets/, /^d\.cfg:-/]);
  const at = lineOf(config, 'bind :9100');
  t.strictSame(
    names([
      `Binding [${path}:${at}] for proxy d: cannot bind socket (Address already in use) for [0.0.0.0:9100]`,
    ]),
    ['d.cfg:2 HAProxy says: for proxy d: cannot bind socket (Address already in use) for [0.0.0.0:9100]'],
  );
  t.end();
});
