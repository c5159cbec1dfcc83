import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import t from 'tap';
import { freePort } from '../support/free-port.ts';
import { spawnWithUs } from '../support/with-us.ts';
import { AppBed, type Browser, ORIGIN } from './app-bed.ts';

/** The programs of docs/your-own-service.md, as they stand there, beside a real app tier. */
t.setTimeout(1_100_000);
const PASSWORD = 'four green turtles';
const PAGE = resolve(import.meta.dirname, '../../docs/your-own-service.md');
/** What the page promises: a service that is read at a glance. */
const MOST_LINES = 42;

const page = await readFile(PAGE, 'utf8');
const bed = await AppBed.start();
t.teardown(() => bed.close());
const node = await bed.addNode();
const directory = await mkdtemp(join(tmpdir(), 'bornemisza-own-'));
t.teardown(() => rm(directory, { recursive: true, force: true }));

/** The only block of a language. */
function blockOf(language: string): string {
  const found = [...page.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'gms'))];
  if (found.length !== 1) throw new Error(`${found.length} blocks of ${language}`);
  return found[0]?.[1] ?? '';
}

async function start(program: string, file: string, code: string, api: number): Promise<number> {
  const port = await freePort();
  await writeFile(join(directory, file), code);
  const env = { PATH: process.env['PATH'], API: `http://127.0.0.1:${api}`, PORT: String(port) };
  let said = '';
  const child: ChildProcess = spawnWithUs(program, [join(directory, file)], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  child.stderr?.on('data', (part: Buffer) => {
    said += part.toString();
  });
  t.teardown(async () => {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  });
  await bed.until(async () => {
    if (child.exitCode !== null) throw new Error(`${file} ended: ${said}`);
    return (await fetch(`http://127.0.0.1:${port}/visits/health`)).ok;
  }, `${file} serves: ${said}`);
  return port;
}

const PROGRAMS = [
  ['node', process.execPath, 'visits.mjs', blockOf('js')],
  ['python', '/usr/bin/python3', 'visits.py', blockOf('python')],
] as const;

/** A request as the edge hands it on: the visitor's cookie, and what a browser says of its origin. */
async function visit(
  browser: Browser,
  port: number,
  method: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<{ status: number; body: Record<string, unknown> }> {
  const answer = await fetch(`http://127.0.0.1:${port}/visits`, {
    method,
    headers: { cookie: browser.cookie, origin: ORIGIN, 'sec-fetch-site': 'same-origin', ...headers },
  });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
}

for (const [language, program, file, code] of PROGRAMS) {
  t.test(
    `the service in ${language} knows the visitor and keeps data in the visitor's database`,
    async (t) => {
      t.ok(code.split('\n').length <= MOST_LINES, `${code.split('\n').length} lines`);
      const port = await start(program, file, code, node.port);
      const stranger = bed.browser(node);
      t.equal((await visit(stranger, port, 'GET')).status, 401);
      t.equal((await visit(stranger, port, 'POST')).status, 401);

      const [anna, bert] = [bed.browser(node), bed.browser(node)];
      await bed.register(anna, `anna-${language}@example.org`, PASSWORD);
      await bed.register(bert, `bert-${language}@example.org`, PASSWORD);
      for (const each of [anna, bert])
        await bed.until(async () => (await visit(each, port, 'GET')).status === 200, 'the database is made');
      t.same((await visit(anna, port, 'GET')).body, { email: `anna-${language}@example.org`, count: 0 });
      t.match(await visit(anna, port, 'POST'), { status: 201, body: { count: 1 } });

      // At once: whoever is later reads again, so no press of the button is lost.
      const many = await Promise.all(Array.from({ length: 8 }, () => visit(anna, port, 'POST')));
      t.same(
        many.map(({ body }) => body['count']).toSorted((a, b) => Number(a) - Number(b)),
        [2, 3, 4, 5, 6, 7, 8, 9],
      );
      t.match((await anna.ask('GET', '/api/data/visits')).body, { count: 9 }, 'it is in her own database');
      t.match((await visit(bert, port, 'GET')).body, { count: 0 }, 'and in nobody else’s');

      for (const site of ['cross-site', 'same-site', 'none'])
        t.equal((await visit(anna, port, 'POST', { 'sec-fetch-site': site })).status, 403, site);
      t.match((await visit(anna, port, 'GET')).body, { count: 9 });

      await anna.ask('DELETE', '/api/session');
      t.equal((await visit(anna, port, 'GET')).status, 401, 'who signed out is unknown');
    },
  );

  t.test(`the service in ${language} answers 503 while the app tier is away, and continues`, async (t) => {
    const port = await start(program, `away-${file}`, code, node.port);
    const carl = bed.browser(node);
    await bed.register(carl, `carl-${language}@example.org`, PASSWORD);
    await bed.until(async () => (await visit(carl, port, 'POST')).status === 201, 'the database is made');
    await node.end('SIGKILL');
    for (const method of ['GET', 'POST']) t.equal((await visit(carl, port, method)).status, 503);
    await node.start();
    t.match(await visit(carl, port, 'GET'), { status: 200, body: { count: 1 } });
  });
}
