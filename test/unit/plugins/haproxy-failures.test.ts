import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { failedService, Failures, unansweredBy } from '../../../src/plugins/haproxy/failures.ts';
import { until } from '../../support/until.ts';

/** As HAProxy 2.6 writes them; the whole way is run in test/integration/haproxy-health.test.ts. */
const FAILED =
  'Health check for server local_site/_local failed, reason: Layer4 connection problem, info: "Connection refused", ' +
  'check duration: 0ms, status: 1/2 UP.';

t.test('a line of HAProxy names the local service that fails its check', async (t) => {
  const silent = FAILED.replace('Layer4 connection problem, info: "Connection refused"', 'Layer7 timeout');
  for (const [line, service, how = 'failed'] of [
    [FAILED, 'site'],
    [FAILED.replace('local_site/', 'local_site.watch/'), 'site'],
    [silent, 'site', 'silent'],
    [silent.replace('Layer7', 'Layer4'), 'site', 'silent'],
    [silent.replace('local_site/', 'local_site.watch/'), 'site'],
    [FAILED.replace('"Connection refused"', '", reason: Layer7 timeout"'), 'site'],
    ['Server local_my-shop/_local is DOWN. 0 active and 0 backup servers left.', 'my-shop'],
    ['Server local_site/_local is UP. 1 active and 0 backup servers online.', undefined],
    [FAILED.replace('failed,', 'succeeded,'), undefined],
    [FAILED.replace('local_site/_local', 'svc_site/app2'), undefined],
    [FAILED.replace('_local failed', 'app2 failed'), undefined],
    ['backend local_site has no server available!', undefined],
    [`<3>${FAILED}`, undefined],
    ['', undefined],
  ] as const)
    t.same(failedService(line), service === undefined ? undefined : { service, how }, line);
});

const UNANSWERED =
  'Health check for server door.watch/app2 failed, reason: Layer4 timeout, check duration: 200ms, status: 2/3 UP.';

t.test('a line of HAProxy names the member whose host gave no answer', async (t) => {
  for (const [line, name] of [
    [UNANSWERED, 'app2/app'],
    [UNANSWERED.replace('door.watch/app2', 'db_nodes.watch/db-1'), 'db-1/db'],
    [
      UNANSWERED.replace('Layer4 timeout', 'Layer4 connection problem, info: "Connection refused"'),
      undefined,
    ],
    [UNANSWERED.replace('Layer4', 'Layer6'), undefined],
    [UNANSWERED.replace('door.watch/app2', 'svc_site.panic/app2'), undefined],
    [UNANSWERED.replace('door.watch/app2', 'local_site.watch/_local'), undefined],
    [UNANSWERED.replace('failed,', 'succeeded,'), undefined],
    ['Server door.watch/app2 is DOWN, reason: Layer4 timeout', undefined],
  ] as const)
    t.equal(unansweredBy(line), name, line);
});

t.test('it reports each service of a burst one time, and connects again', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'bornemisza-failures-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, 'stats.sock');
  const asked: string[] = [];
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined).on('data', (text) => asked.push(text.toString()));
  });
  const heard: string[] = [];
  const how: string[] = [];
  // Nobody is there at first, as when both start.
  const hosts: string[] = [];
  const failures = new Failures(
    path,
    {
      failedElsewhere: (service, kind) => {
        heard.push(service);
        how.push(kind);
      },
    },
    { unanswered: (name) => hosts.push(name) },
  ).listen();
  t.teardown(() => failures.close());
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.teardown(() => server.close());
  await until(() => asked.length === 1);
  t.equal(asked[0], 'show events failures -w -n\n');
  sockets[0]?.write(`${FAILED}\n${FAILED}\nServer local_sh`);
  await until(() => heard.length === 1);
  sockets[0]?.write('op/_local is DOWN. 0 active\n');
  await until(() => heard.length === 2);
  t.same(heard, ['site', 'shop'], 'a line may come in pieces');
  t.same(how, ['failed', 'failed']);
  const silent = FAILED.replace('Layer4 connection problem, info: "Connection refused"', 'Layer7 timeout');
  sockets[0]?.write(`${silent}\n${FAILED.replace('local_site/', 'local_site.watch/')}\n`);
  await until(() => heard.length === 3);
  t.equal(how[2], 'silent', 'the quick check beside it hides nothing');
  sockets[0]?.write(`${UNANSWERED}\n${UNANSWERED}\n${UNANSWERED.replace('door.watch', 'db_nodes.watch')}\n`);
  await until(() => hosts.length === 2);
  t.same(hosts, ['app2/app', 'app2/db']);
  sockets[0]?.destroy();
  await until(() => asked.length === 2, { what: 'it comes back after HAProxy went away' });
  failures.close();
  await until(() => sockets[1]?.closed === true || sockets[1]?.readableEnded === true);
});
