import t from 'tap';
import { shareOf } from '../../../src/plugins/haproxy/endings.ts';
import {
  answersIn,
  offersAddServer,
  oldSinceSeconds,
  parseAcl,
  parseConnections,
  parseFrontends,
  parseInfo,
  parseLong,
  parseProcesses,
  parseServersState,
  parseStat,
  parseStreams,
  sessionsFrom,
} from '../../../src/plugins/haproxy/runtime.ts';

/** Answers of HAProxy 2.6.12, but where another version is named. */
const HEADER =
  '# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight ' +
  'srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state ' +
  'srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port ' +
  'srv_check_addr srv_agent_addr srv_agent_port';

t.test('the answers to several commands on one connection', async (t) => {
  t.same(answersIn('Name: HAProxy\nPid: 7\n\n\n1\n# be_id\n\n'), ['Name: HAProxy\nPid: 7', '', '1\n# be_id']);
  t.same(answersIn(''), []);
  t.same(answersIn('Pid: 7\n'), [], 'an answer without its end is none');
});

t.test('the connections of a process', async (t) => {
  t.equal(parseConnections('Name: HAProxy\nCurrConns: 13\nCumConns: 99\n'), 13);
  t.equal(parseConnections(''), 0, 'one that went away meanwhile has none');
});

t.test('frontends, servers, and the open requests of each frontend', async (t) => {
  const csv =
    '# pxname,svname,qcur,qmax,scur,smax,status\nedge,FRONTEND,,,3,9,OPEN\nsvc_shop,app1,0,0,2,4,UP\n' +
    'svc_shop,BACKEND,0,0,2,4,UP\n';
  t.same(parseStat(csv), {
    frontends: [{ name: 'edge', connections: 3 }],
    servers: [{ backend: 'svc_shop', name: 'app1', status: 'UP', sessions: 2 }],
  });
  const line = (id: string, fe: string): string =>
    `0x${id}: proto=tcpv4 src=10.0.0.9:41 fe=${fe} be=svc_shop srv=app1 ts=00 epoch=0 age=2s calls=2`;
  const sessions = [line('7f1', 'edge'), line('7f2', 'edge'), line('7f3', 'GLOBAL'), ''].join('\n');
  t.same(
    [...parseStreams(sessions)],
    [
      ['edge', 2],
      ['GLOBAL', 1],
    ],
  );
});

t.test('states of servers', async (t) => {
  const states = parseServersState(`1
${HEADER}
3 b 1 ready 10.0.0.1 2 0 1 1 1 8 2 0 6 0 0 0 - 6984 - 0 0 - - 0
3 b 2 down 10.0.0.1 0 0 1 1 1 8 2 0 6 0 0 0 - 6984 - 0 0 - - 0
3 b 3 disabled 10.0.0.1 0 5 1 1 1 1 0 0 14 0 0 0 - 6984 - 0 0 - - 0
3 b 4 enabled-again 10.0.0.1 2 4 1 1 1 8 2 0 6 0 0 0 - 6984 - 0 0 - - 0
3 b 5 draining 10.0.0.1 0 8 1 1 1 8 2 0 6 0 0 0 - 6984 - 0 0 - - 0
3 b 6 unchecked 10.0.0.1 2 0 1 1 1 8 2 0 2 0 0 0 - 6984 - 0 0 - - 0
3 b 7 lighter 10.0.0.1 2 0 0 1 1 8 2 0 6 0 0 0 - 6984 - 0 0 - - 0`);
  const facts = Object.fromEntries(
    states.map(({ name, maint, drain, up, checked, fullWeight }) => [
      name,
      { maint, drain, up, checked, fullWeight },
    ]),
  );
  const normal = { maint: false, drain: false, up: true, checked: true, fullWeight: true };
  t.same(facts, {
    ready: normal,
    down: { ...normal, up: false },
    disabled: { ...normal, maint: true, up: false },
    'enabled-again': normal,
    draining: { ...normal, drain: true, up: false },
    unchecked: { ...normal, checked: false },
    lighter: { ...normal, fullWeight: false },
  });
});

t.test('the master’s own proxy, which 2.4 lists beside ours, is left out', async (t) => {
  const states = parseServersState(`1
${HEADER}
1 MASTER 1 cur-1 - 2 0 0 0 12 1 0 0 0 0 0 0 - 0 - 0 0 - - 0
3 b 1 ready 10.0.0.1 2 0 1 1 1 8 2 0 6 0 0 0 - 6984 - 0 0 - - 0`);
  t.same(
    states.map(({ backend, name }) => `${backend}/${name}`),
    ['b/ready'],
  );
});

t.test('columns are found by name, and garbage is no server', async (t) => {
  t.same(parseServersState(''), []);
  t.same(parseServersState('Unknown command'), []);
  t.same(parseServersState(`1\n${HEADER}\nshort line`), []);
  const moved = parseServersState(
    `1\n# srv_name be_name srv_addr srv_port srv_op_state srv_admin_state srv_check_state srv_uweight ` +
      `srv_iweight a b c d e f g h i j\nx b 10.0.0.1 80 2 0 6 1 1 - - - - - - - - - -`,
  );
  t.match(moved, [{ backend: 'b', name: 'x', address: '10.0.0.1', port: 80, up: true, maint: false }]);
});

t.test('the process says which structure it runs', async (t) => {
  const info = 'Name: HAProxy\nVersion: 2.6.12-1+deb12u4\nPid: 13223\ndescription: bornemisza-app-abc123\n';
  t.same(parseInfo(info, 'app'), { pid: 13223, structure: 'abc123' });
  t.equal(parseInfo(info, 'db').structure, '', 'another instance’s is not ours');
  t.equal(parseInfo('Version: 3.0.5\nPid: 1\n', 'app').structure, '', 'no description');
});

t.test('whether servers can be added is what the socket’s help says', async (t) => {
  t.ok(
    offersAddServer(
      'The following commands are valid at this level:\n  add server <bk>/<srv>                   : ' +
        'create a new server\n',
    ),
  );
  t.notOk(offersAddServer("Unknown command: 'add server'. Please enter one of the following:\n"));
  t.notOk(offersAddServer(''));
});

t.test('frontends', async (t) => {
  const text =
    '# pxname,svname,qcur,status,weight\nedge,FRONTEND,,OPEN,\ndoor,FRONTEND,,STOP,\nb,BACKEND,,UP,\n';
  t.same(
    [...parseFrontends(text)],
    [
      ['edge', true],
      ['door', false],
    ],
  );
});

t.test('revoked serials', async (t) => {
  t.same(parseAcl('0x55d4f0 AB12\n0x55d4f1 F00D'), ['AB12', 'F00D']);
  t.same(parseAcl('Unknown ACL identifier. Please use #<id> or <file>.'), []);
});

t.test('processes of a master, 2.6', async (t) => {
  const text = `#<PID>          <type>          <reloads>       <uptime>        <version>
13220           master          3 [failed: 1]   0d00h00m03s     2.6.12
# workers
13252           worker          0               0d00h00m01s     2.6.12
# old workers
13223           worker          2               0d00h00m02s     2.6.12
# programs
`;
  t.same(parseProcesses(text), [
    { pid: 13220, kind: 'master', reloads: 3, upSeconds: 3, failed: 1 },
    { pid: 13252, kind: 'worker', reloads: 0, upSeconds: 1, failed: undefined },
    { pid: 13223, kind: 'old-worker', reloads: 2, upSeconds: 2, failed: undefined },
  ]);
});

t.test('processes of a master, 2.4: one more column, and a failed reload leaves no worker', async (t) => {
  const text = `#<PID>          <type>          <relative PID>  <reloads>       <uptime>        <version>
1162            master          0               5               0d00h02m07s     2.4.0
# workers
1271            worker          1               0               0d00h00m00s     2.4.0
`;
  t.same(parseProcesses(text), [
    { pid: 1162, kind: 'master', reloads: 5, upSeconds: 127, failed: undefined },
    { pid: 1271, kind: 'worker', reloads: 0, upSeconds: 0, failed: undefined },
  ]);
  // 2.4.22 after a reload that could not bind a port.
  const afterFailure = `#<PID>          <type>          <relative PID>  <reloads>       <uptime>        <version>
32605           master          0               2               0d00h00m07s     2.4.22-f8e3218e2
# workers
# old workers
32608           worker          [was: 1]        2               0d00h00m07s     2.4.22-f8e3218e2
# programs
`;
  t.same(parseProcesses(afterFailure), [
    { pid: 32605, kind: 'master', reloads: 2, upSeconds: 7, failed: 1 },
    { pid: 32608, kind: 'old-worker', reloads: NaN, upSeconds: 7, failed: undefined },
  ]);
});

t.test('sessions of an address in the doors, and no others', async (t) => {
  const text = `0x7f1: proto=tcpv4 src=10.0.0.9:40000 fe=app_door be=couchdb srv=_local ts=00 age=1s
0x7f2: proto=tcpv4 src=10.0.0.90:40000 fe=app_door be=couchdb srv=_local ts=00
0x7f3: proto=tcpv4 src=10.0.0.9:40001 fe=stats be=<NONE> srv=<none> ts=00
0x7f4: proto=unix_stream src=unix:1 fe=GLOBAL be=<NONE> srv=<none> ts=00`;
  t.same(sessionsFrom(text, '10.0.0.9', ['app_door', 'peer_door']), ['0x7f1']);
});

t.test('what lasts, with its age, as 2.6 lists it', async (t) => {
  const text = [
    '0x555eb80f60e0: proto=unix_stream src=unix:1 fe=GLOBAL be=<NONE> srv=<none> ts=00 epoch=0 age=0s calls=1 rate=0',
    '0x7f357c042150: proto=tcpv4 src=127.0.0.1:60488 fe=edge be=b srv=s ts=00 epoch=0 age=1m05s calls=4 rate=1 cpu=0',
    'no session',
  ].join('\n');
  t.same(parseLong(text), [
    { id: '0x555eb80f60e0', frontend: 'GLOBAL', ageSeconds: 0 },
    { id: '0x7f357c042150', frontend: 'edge', ageSeconds: 65 },
  ]);
});

t.test('a process is old since the next one began', async (t) => {
  const rows = [
    '#<PID>          <type>          <reloads>       <uptime>        <version>',
    '3090            master          2 [failed: 0]   1d02h00m05s     2.6.12-1+deb12u4',
    '# workers',
    '3141            worker          0               0d00h01m02s     2.6.12-1+deb12u4',
    '# old workers',
    '3120            worker          1               0d00h10m00s     2.6.12-1+deb12u4',
    '3095            worker          2               1d02h00m05s     2.6.12-1+deb12u4',
    '# programs',
  ];
  t.same(
    [...oldSinceSeconds(parseProcesses(rows.join('\n')))],
    [
      [3120, 62],
      [3095, 600],
    ],
  );
  // The one in between has ended.
  t.same(
    [...oldSinceSeconds(parseProcesses(rows.filter((row) => !row.startsWith('3120')).join('\n')))],
    [[3095, 62]],
  );
});

t.test('ends are spread over the time that is left, and the last step takes all', async (t) => {
  let open = 100;
  const steps: number[] = [];
  for (let leftMs = 50_000; open > 0; leftMs -= 5000) {
    steps.push(shareOf(open, leftMs, 5000));
    open -= steps.at(-1) ?? 0;
  }
  t.same(steps, Array(10).fill(10));
  t.equal(shareOf(7, 4000, 5000), 7);
  t.equal(shareOf(7, -1000, 5000), 7, 'late');
  t.equal(shareOf(0, 50_000, 5000), 0);
});
