import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mock } from 'node:test';
import t, { type Test } from 'tap';
import { CouchDbPlugin } from '../../../src/plugins/couchdb/plugin.ts';
import { node } from './scene.ts';

/**
 * What a CouchDB of two answers whose other node is behind a cut that Erlang has not noticed: questions to it hang, and
 * with `admins` those of an administrator, whom it looks up in `_users`, on both.
 */
async function cutCouchDb(
  admins: 'answered' | 'hanging',
  onHanging: () => void,
): Promise<{ baseUrl: string; close: () => Promise<void> }> {
  const hanging: ServerResponse[] = [];
  const answers: Record<string, unknown> = {
    '/_up': { status: 'ok' },
    '/': { version: '3.5.0' },
    '/_membership': { all_nodes: [node(1), node(2)], cluster_nodes: [node(1), node(2)] },
    '/_node/_local': { name: node(1) },
    '/_node/_local/_config/bornemisza': {},
    '/_node/_local/_config/cluster': {},
    '/_node/_local/_dbs': { uuid: 'a', update_seq: 1, doc_count: 1 },
    '/_node/_local/_dbs/_changes': {
      results: [
        { id: '_users', doc: { _id: '_users', by_node: {}, by_range: {}, shard_suffix: [], changelog: [] } },
      ],
      last_seq: 1,
    },
    [`/_node/${node(1)}/_system`]: { distribution: { [node(2)]: {} } },
    [`/_node/${node(1)}/_nodes/_all_docs`]: { rows: [] },
    [`/_node/${node(1)}/_dbs`]: { doc_count: 1 },
  };
  const server = createServer(({ url = '', headers }, response) => {
    const path = decodeURIComponent(url.split('?')[0] ?? '');
    const asAdmin = admins === 'hanging' && headers.authorization !== undefined;
    if (asAdmin || path.startsWith(`/_node/${node(2)}/`) || path.startsWith('/_users/')) {
      hanging.push(response);
      onHanging();
    } else
      response
        .writeHead(path in answers ? 200 : 404, { 'content-type': 'application/json' })
        .end(JSON.stringify(answers[path] ?? {}));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close(this: void) {
      for (const response of hanging) response.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A plugin whose look is under way when the daemons notice that one of them is silent. */
async function lookIntoCut(t: Test, admins: 'answered' | 'hanging', endedBy: 'doubt' | 'own time' = 'doubt') {
  const ownTime = new AbortController();
  const { baseUrl, close } = await cutCouchDb(admins, () => {
    if (endedBy === 'own time') ownTime.abort();
  });
  t.teardown(close);
  const directory = await mkdtemp(join(tmpdir(), 'couchdb-observe-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  let unheard: string[] = [];
  const plugin = new CouchDbPlugin({
    credentials: () => ({ name: 'admin', password: 'right-password' }),
    appUser: () => ({ name: 'app', password: 'app-password' }),
    unheard: () => unheard,
    baseUrl,
    configDirectory: directory,
    markerFile: join(directory, 'marker'),
    restartFile: join(directory, 'restart'),
  });
  t.teardown(() => plugin.close());
  // The own time of a question is longer than doubt takes, unless it began long before the cut.
  mock.method(AbortSignal, 'timeout', () => ownTime.signal);
  t.teardown(() => mock.restoreAll());
  const looking = plugin.observe(new AbortController().signal);
  // The daemons notice while the question is under way.
  unheard = [node(2)];
  const { http } = await looking;
  return http;
}

t.test(
  'a CouchDB with an unreachable daemon is waited for less long than one with a live daemon',
  async (t) => {
    const http = await lookIntoCut(t, 'answered');
    if (http.kind !== 'up') throw new Error(`it answers: ${JSON.stringify(http)}`);
    t.equal(http.server.members.get(node(2)), undefined);
    t.match(http.server.members.get(node(1)), { connected: [node(1), node(2)] });
    t.equal(http.server.appUser, 'unasked', 'a document that both hold would hang as well');
  },
);

t.test('a CouchDB of two that answers no administrator is reported to wait for the other', async (t) => {
  for (const endedBy of ['doubt', 'own time'] as const)
    t.match(await lookIntoCut(t, 'hanging', endedBy), { kind: 'failed', unheard: [node(2)] }, endedBy);
});

t.test(
  'a refused password is sent once more when an operator asks, though CouchDB was not seen down',
  async (t) => {
    const { signal } = new AbortController();
    let [accepts, asked] = [false, 0];
    const server = createServer(({ url = '', headers }, response) => {
      if (headers.authorization !== undefined) asked += 1;
      const status = url.startsWith('/_up') || accepts ? 200 : 401;
      response.writeHead(status, { 'content-type': 'application/json' }).end('{"error":"x","reason":"y"}');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.teardown(() => server.close().closeAllConnections());
    const directory = await mkdtemp(join(tmpdir(), 'couchdb-observe-'));
    t.teardown(() => rm(directory, { recursive: true, force: true }));
    const plugin = new CouchDbPlugin({
      credentials: () => ({ name: 'admin', password: 'right-password' }),
      baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      configDirectory: directory,
      markerFile: join(directory, 'marker'),
      restartFile: join(directory, 'restart'),
    });
    t.teardown(() => plugin.close());
    const kind = async () => (await plugin.observe(signal)).http.kind;
    t.equal(await kind(), 'refused');
    const before = asked;
    accepts = true;
    t.equal(await kind(), 'refused');
    t.equal(asked, before, 'five wrong ones lock the account');
    plugin.retry();
    t.not(await kind().catch(() => 'answered'), 'refused');
    t.ok(asked > before);
  },
);
