import { mkdir, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { mock } from 'node:test';
import t from 'tap';
import { serveSite, type Site } from '../../../src/cli/site.ts';
import { until } from '../../support/until.ts';
import { runCli } from './captured-io.ts';
import { place } from './place.ts';

async function site(
  test: { teardown(fn: () => unknown): unknown },
  root: string,
): Promise<{ site: Site; url: string }> {
  const served = await serveSite(root, 0, () => {});
  test.teardown(() => served.close());
  return { site: served, url: `http://127.0.0.1:${served.port}` };
}

/** As it is written, without what fetch would tidy up. */
function statusOf(port: number, path: string, method = 'GET'): Promise<number> {
  return new Promise((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port, path, method, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    call.on('error', reject);
    call.end();
  });
}

t.test('an empty site is healthy, and a page that is put there later is seen', async (t) => {
  const root = await place(t);
  const { url } = await site(t, root);
  const empty = await fetch(url);
  t.equal(empty.status, 200);
  t.match(await empty.text(), 'Put index.html into');
  t.equal((await fetch(`${url}/x`)).status, 404);
  await writeFile(join(root, 'index.html'), '<h1>one</h1>');
  await until(async () => (await (await fetch(url)).text()).includes('one'));
  await writeFile(join(root, 'index.html'), '<h1>two, and longer</h1>');
  await until(async () => (await (await fetch(url)).text()) === '<h1>two, and longer</h1>');
  const response = await fetch(url);
  t.equal(response.headers.get('x-content-type-options'), 'nosniff');
  t.match(response.headers.get('content-type'), 'text/html');
});

t.test('nothing outside the directory is served, nothing hidden, and nothing but GET and HEAD', async (t) => {
  const root = await place(t, { secret: 'no', 'www/index.html': 'hi', 'www/.env': 'no' });
  const { site: served } = await site(t, join(root, 'www'));
  for (const path of ['/../secret', '/%2e%2e/secret', '/..%2fsecret', '/.env', '//etc/passwd'])
    t.equal(await statusOf(served.port, path), 404, path);
  t.equal(await statusOf(served.port, '/'), 200);
  t.equal(await statusOf(served.port, '/', 'HEAD'), 200);
  t.equal(await statusOf(served.port, '/', 'POST'), 405);
});

t.test('a port in use and a missing directory end in one sentence', async (t) => {
  const root = await place(t);
  await mkdir(join(root, 'www'));
  const { site: served } = await site(t, join(root, 'www'));
  const taken = await runCli(['site', '--root', join(root, 'www'), '--port', String(served.port)]);
  t.equal(taken.code, 1);
  t.match(taken.err, `port ${served.port} of 127.0.0.1 is in use`);
  t.match(taken.err, 'ss -ltnp');
  const absent = await runCli(['site', '--root', join(root, 'nowhere')]);
  t.match(absent.err, 'is not a directory');
  t.equal((await runCli(['site', '--root', root, '--port', '70000'])).code, 2);
});

t.test('closing lets what is being answered end, and waits for nobody who sleeps', async (t) => {
  const root = await place(t, { 'index.html': 'hi' });
  const { site: served, url } = await site(t, root);
  t.equal((await fetch(url)).status, 200);
  // The time after which connections are cut never comes: the kept-alive one of fetch does not hold it.
  mock.timers.enable({ apis: ['setTimeout'] });
  t.teardown(() => mock.timers.reset());
  await served.close();
  mock.timers.reset();
  await t.rejects(fetch(url));
});
