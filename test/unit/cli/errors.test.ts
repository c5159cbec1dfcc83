import { spawnSync } from 'node:child_process';
import { chmod, mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import t from 'tap';
import { ControlClient, printable } from '../../../src/cli/client.ts';
import { CliFailure, EXIT, tell } from '../../../src/cli/failure.ts';
import { whyNone } from '../../../src/cli/instances.ts';
import { configOf, controlSocketOf, ROLES } from '../../../src/cli/places.ts';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import { OperatorError } from '../../../src/daemon/errors.ts';
import { runCli } from './captured-io.ts';
import { FakeDaemon, MEMBERS, member, refusal, status } from './fake-daemon.ts';
import { place } from './place.ts';

const NEEDS_DAEMON = [
  ['status'],
  ['members'],
  ['events'],
  ['explain', 'db1/db'],
  ['maintenance', 'on'],
  ['leave'],
  ['remove', 'db1/db'],
  ['plan'],
  ['guards', 'release'],
  ['notify', 'test'],
  ['token', 'create', '--role', 'db'],
  ['token', 'list'],
  ['token', 'revoke', '--all'],
];

t.test('the two paths that the command knows are the daemon’s', async (t) => {
  for (const role of ROLES) {
    t.equal(controlSocketOf(role, '/r'), pathsFor(role, '/r').controlSocket);
    t.equal(configOf(role, '/r'), pathsFor(role, '/r').config);
  }
});

t.test('every command that needs the daemon names the systemctl line when it is down', async (t) => {
  const root = await place(t, { 'etc/bornemisza/db.toml': '' });
  for (const argv of NEEDS_DAEMON) {
    const { code, out, err } = await runCli([...argv, '--root', root]);
    t.equal(code, EXIT.notRunning, argv.join(' '));
    t.equal(out, '');
    t.equal(
      err,
      'bornemisza: the daemon bornemisza@db is not running\n  next: systemctl start bornemisza@db\n',
      argv.join(' '),
    );
  }
});

t.test('every command that needs the daemon says how to begin on a fresh host', async (t) => {
  const root = await place(t);
  for (const argv of NEEDS_DAEMON) {
    const { code, err } = await runCli([...argv, '--root', root]);
    t.equal(code, EXIT.notRunning, argv.join(' '));
    t.match(err, 'not part of a cluster yet');
    t.match(err, 'bornemisza init --role');
  }
  const { err } = await runCli(['members', '--role', 'db', '--root', root]);
  t.match(err, 'role db is not set up on this host');
});

t.test('a socket that a killed daemon left behind is a daemon that is down', async (t) => {
  const root = await place(t, { 'etc/bornemisza/app.toml': '' });
  const path = controlSocketOf('app', root);
  await mkdir(dirname(path), { recursive: true });
  spawnSync(process.execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`,
  ]);
  const { code, err } = await runCli(['members', '--root', root]);
  t.equal(code, EXIT.notRunning);
  t.match(err, 'systemctl start bornemisza@app');
});

t.test('a node that is no longer a member gets no advice to start its daemon', async (t) => {
  const memory = JSON.stringify({ left: true });
  const root = await place(t, { 'etc/bornemisza/db.toml': '', 'var/lib/bornemisza/db/local.json': memory });
  for (const verb of ['status', 'members', 'leave']) {
    const { code, err } = await runCli([verb, '--root', root]);
    t.equal(code, EXIT.notRunning, verb);
    t.match(err, /no longer a member.*(left|removed)/, verb);
    t.match(err, /join --reset -/, verb);
    t.match(err, /leave --wipe --role db/, verb);
    t.notMatch(err, 'systemctl start', verb);
  }
});

t.test('a missing permission names group and sudo', async (t) => {
  for (const told of [
    whyNone([{ role: 'app', socket: 'forbidden', configured: 'hidden' }]),
    whyNone([
      { role: 'app', socket: 'absent', configured: 'hidden' },
      { role: 'db', socket: 'absent', configured: 'hidden' },
    ]),
  ]) {
    t.equal(told.exit, EXIT.permission);
    t.match(told.next, 'sudo');
    t.match(told.next, 'usermod -aG bornemisza');
  }
});

t.test('a user outside of the group gets that error from a real socket', async (t) => {
  const root = await place(t);
  const path = controlSocketOf('app', root);
  const fake = await new FakeDaemon(root, 'app', { 'GET /v1/status': { json: status() } }).start();
  t.teardown(() => fake.stop());
  // Modes don't bind root: it becomes nobody (but stays in its group) for the one call.
  const asRoot = process.geteuid?.() === 0;
  await chmod(root, 0o755);
  await chmod(path, asRoot ? 0o600 : 0o000);
  if (asRoot) process.seteuid?.(65534);
  const answer = await new ControlClient(path, 'app').get('/v1/status').catch((error: unknown) => error);
  if (asRoot) process.seteuid?.(0);
  t.ok(answer instanceof CliFailure);
  t.match(answer, { exit: EXIT.permission, code: 'not-permitted' });
});

t.test('errors are one JSON object with --json', async (t) => {
  const root = await place(t);
  const { err, out } = await runCli(['members', '--json', '--root', root]);
  t.equal(out, '');
  const { error } = JSON.parse(err);
  t.same(Object.keys(error), ['code', 'message', 'next']);
  t.equal(error.code, 'not-initialised');
});

t.test('a wrong command line is exit code 2 and points to the right help', async (t) => {
  const table: readonly (readonly [string[], RegExp, string])[] = [
    [['statsu'], /unknown command 'statsu'.*Did you mean status/, 'bornemisza --help'],
    [['status', '--colour'], /unknown option '--colour'/, 'bornemisza status --help'],
    [
      ['status', '--role', 'web'],
      /'web' is invalid. Allowed choices are app, db/,
      'bornemisza status --help',
    ],
    [['init'], /required option '--role <role>' not specified/, 'bornemisza init --help'],
    [['maintenance', 'maybe'], /Allowed choices are on, off/, 'bornemisza maintenance --help'],
    [['explain'], /: explain needs its argument: node \(HOST\/ROLE, /, 'bornemisza explain --help'],
    [
      ['maintenance'],
      /: maintenance needs its argument: state \(on, off\)\n/,
      'bornemisza maintenance --help',
    ],
    [['members', 'x'], /too many arguments/, 'bornemisza members --help'],
    [['token'], /token needs one of its commands/, 'bornemisza token --help'],
    [['events', '--limit', 'many'], /whole number/, 'bornemisza events --help'],
  ];
  for (const [argv, message, next] of table) {
    const { code, out, err } = await runCli(argv);
    t.equal(code, EXIT.usage, argv.join(' '));
    t.equal(out, '');
    t.match(err, message);
    t.ok(err.endsWith(`next: ${next}\n`), `${argv.join(' ')} → ${next}`);
  }
  const bare = await runCli([]);
  t.equal(bare.code, EXIT.usage);
  t.match(bare.err, 'Usage: bornemisza COMMAND');
});

t.test('a refusal of the daemon is passed on with its own next step', async (t) => {
  const root = await place(t);
  const table: readonly (readonly [number, string, number])[] = [
    [400, 'bad-request', EXIT.usage],
    [404, 'member-unknown', EXIT.failure],
    [409, 'already', EXIT.failure],
    [409, 'guard-landslide', EXIT.refused],
    [503, 'starting', EXIT.failure],
  ];
  let at = 0;
  const fake = await new FakeDaemon(root, 'app', {
    'GET /v1/plan': () => ({
      json: refusal(table[at]?.[1] ?? '', 'no', 'do that'),
      status: table[at]?.[0] ?? 500,
    }),
  }).start();
  t.teardown(() => fake.stop());
  for (const [httpStatus, code, exit] of table) {
    const answer = await runCli(['plan', '--root', root]);
    t.equal(answer.code, exit, `${httpStatus} ${code}`);
    t.equal(answer.err, 'bornemisza: no\n  next: do that\n');
    at += 1;
  }
});

t.test('an answer that is not JSON, and a broken connection, have their own errors', async (t) => {
  const root = await place(t);
  const fake = await new FakeDaemon(root, 'app', {
    'GET /v1/members': { raw: '<html>' },
    'POST /v1/leave': { lines: [{ message: 'one' }], cut: true },
  }).start();
  t.teardown(() => fake.stop());
  const odd = await runCli(['members', '--root', root]);
  t.equal(odd.code, EXIT.failure);
  t.match(odd.err, 'an answer that this command does not understand');
  const broken = await runCli(['leave', '--root', root]);
  t.equal(broken.code, EXIT.notRunning);
  t.match(broken.err, 'closed the connection');
});

t.test('a daemon that accepts and never answers does not block the command', async (t) => {
  const root = await place(t);
  const fake = await new FakeDaemon(root, 'app', { 'GET /v1/status': 'silence' }).start();
  t.teardown(() => fake.stop());
  const error = await new ControlClient(controlSocketOf('app', root), 'app')
    .get('/v1/status', 50)
    .catch((thrown: unknown) => thrown);
  t.match(error, { code: 'daemon-silent', next: /journalctl/ });
});

t.test('what a peer wrote cannot steer the terminal or forge a line', async (t) => {
  const escape = String.fromCharCode(27);
  t.equal(printable(`a${escape}[31mb\nc\u0007\u009b`), 'a\uFFFD[31mb c\uFFFD\uFFFD');
  const root = await place(t);
  const evil = member({ name: 'db9/db', reason: `${escape}[2J\nall is well` });
  const fake = await new FakeDaemon(root, 'app', {
    'GET /v1/members': { json: { self: 'app1/app', members: [...MEMBERS, evil] } },
  }).start();
  t.teardown(() => fake.stop());
  const { out } = await runCli(['members', '--root', root]);
  t.notOk(out.includes(escape));
  t.notMatch(out, /^all is well/m);
});

t.test(
  'what other rooms throw keeps its code and next step; what nobody foresaw says how to report it',
  async (t) => {
    t.match(tell(new OperatorError('x-y', 'It broke.', 'mend it')), {
      exit: EXIT.failure,
      code: 'x-y',
      message: 'It broke',
      next: 'mend it',
    });
    const denied = Object.assign(new Error('EACCES: open'), { code: 'EACCES' });
    t.match(tell(new OperatorError('config-unreadable', 'cannot read', 'look', { cause: denied })), {
      exit: EXIT.permission,
    });
    t.match(tell(denied), { exit: EXIT.permission, code: 'not-permitted' });
    t.match(tell(new TypeError('oops')), {
      exit: EXIT.failure,
      code: 'unexpected',
      next: /bornemisza doctor/,
    });
  },
);
