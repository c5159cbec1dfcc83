import { spawn } from 'node:child_process';
import { join, resolve } from 'node:path';
import t from 'tap';
import { STORY } from '../demo/story.ts';

const root = resolve(import.meta.dirname, '../..');

/** Runs the demo as a user would, but for the set-up that the test command has done already. */
const demo = (
  args: readonly string[],
): Promise<{
  code: number | null;
  steps: { title: string; ok: boolean; seen: Record<string, number> }[];
  said: string;
}> =>
  new Promise((done, failed) => {
    const child = spawn(process.execPath, [join(root, 'test/demo/main.ts'), '--script', '--json', ...args], {
      cwd: root,
    });
    let out = '';
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => (out += part));
    child.stderr.setEncoding('utf8').on('data', (part: string) => (said += part));
    child.on('error', failed);
    child.on('close', (code) =>
      done({
        code,
        said,
        steps: out
          .split('\n')
          .filter((line) => line.startsWith('{'))
          .map((line) => JSON.parse(line) as { title: string; ok: boolean; seen: Record<string, number> }),
      }),
    );
  });

const titles = STORY.map((step) => step.title);

t.test('the whole story is seen by HAProxy, the router and CouchDB', { timeout: 1_100_000 }, async (t) => {
  const { code, steps, said } = await demo([]);
  if (code !== 0) t.comment(said);
  t.equal(code, 0);
  t.same(
    steps.map((step) => step.title),
    titles,
  );
  for (const step of steps) {
    t.ok(step.ok, step.title);
    for (const where of ['haproxy', 'routes', 'couchdb'])
      t.type(step.seen[where], 'number', `${step.title}: seen in ${where}`);
  }
});

t.test('the loopback variant tells the same story without a router', { timeout: 1_100_000 }, async (t) => {
  const { code, steps, said } = await demo(['--loopback']);
  if (code !== 0) t.comment(said);
  t.equal(code, 0);
  t.same(
    steps.map((step) => step.title),
    titles,
  );
  for (const step of steps) {
    t.ok(step.ok, step.title);
    for (const where of ['haproxy', 'couchdb'])
      t.type(step.seen[where], 'number', `${step.title}: seen in ${where}`);
    t.notOk('routes' in step.seen, 'nothing is said of routes where nobody routes');
  }
});
