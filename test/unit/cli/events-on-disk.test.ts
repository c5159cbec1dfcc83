import { spawnSync } from 'node:child_process';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { AuditEntry } from '../../../src/daemon/control/api.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { FakeDaemon, STORY } from './fake-daemon.ts';
import { place } from './place.ts';

const lines = (entries: readonly object[]) => entries.map((each) => `${JSON.stringify(each)}\n`).join('');
const [dead, took, failed] = STORY as readonly [AuditEntry, AuditEntry, AuditEntry];
const DB = 'etc/bornemisza/db.toml';
const TRAIL = 'var/lib/bornemisza/db/audit.jsonl';
const events = (root: string, ...more: string[]) => runCli(['events', '--root', root, ...more]);

t.test('while the daemon is down, events shows what it left on the disk', async (t) => {
  const root = await place(t, { [DB]: '', [TRAIL]: lines([took, failed]), [`${TRAIL}.1`]: lines([dead]) });
  const { code, out, err } = await events(root);
  t.equal(code, 0);
  t.match(err, 'bornemisza@db is not running: this is its trail on the disk');
  t.match(out, /db2\/db is dead[^]*took db2 out of db_nodes[^]*reconcile failed/, 'the older file first');
  const json = (await events(root, '--json')).out.trim().split('\n');
  t.same(
    json.map((line) => (JSON.parse(line) as AuditEntry).id),
    [7, 8, 9],
  );
  t.same((await events(root, '--failed', '--json')).out, lines([failed]));
  t.same((await events(root, '--since', '7', '--limit', '1', '--json')).out, lines([failed]));
  t.match((await events(root, '--node', 'db2/db')).out, 'is dead');
  t.match(await events(root, '--follow'), { code: 3, out: '', err: /is not running/ }, 'nothing to follow');
  t.match(await events(root, '--role', 'app'), { code: 3, out: '' }, 'no trail of that role');
});

t.test('a daemon that answers is asked, whatever is on the disk', async (t) => {
  const root = await place(t, { [DB]: '', [TRAIL]: lines([dead]) });
  const answers = { 'GET /v1/audit': { json: { entries: [took] } } };
  const fake = await new FakeDaemon(root, 'db', answers).start();
  t.teardown(() => fake.stop());
  const { out, err } = await events(root, '--json');
  t.equal(out, lines([took]));
  t.equal(err, '');
});

t.test('both roles down: the command asks which', async (t) => {
  const files = { 'etc/bornemisza/app.toml': '', 'var/lib/bornemisza/app/audit.jsonl': lines([took]) };
  const root = await place(t, { ...files, [DB]: '', [TRAIL]: lines([dead]) });
  t.match(await events(root), { code: 2, out: '', err: /choose one: --role app or --role db/ });
  t.equal((await events(root, '--role', 'app', '--json')).out, lines([took]));
});

t.test('what is on the disk is bounded, steers no terminal and holds nobody up', async (t) => {
  const escape = String.fromCharCode(27);
  const steering = { ...dead, summary: `a${escape}[2Jb\nc`, trigger: `${escape}]0;x` };
  const odd = ['{"id":1', 'null', '[]', '3', '{"id":"x"}', '{"id":4,"at":"x","summary":"y","subjects":[1]}'];
  const root = await place(t, { [DB]: '', [TRAIL]: `${odd.join('\n')}\n${lines([steering])}{"id":9,"at"` });
  const { code, out } = await events(root);
  t.equal(code, 0);
  t.notOk(out.includes(escape));
  t.match(out, 'a\uFFFD[2Jb c');
  t.equal(out.split('\n').filter((line) => /^ {2}\d{4}-/.test(line)).length, 1, 'entries alone');

  const large = await place(t, { [DB]: '' });
  await mkdir(join(large, 'var/lib/bornemisza/db'), { recursive: true });
  // Ten times what the trail lets a file become: its end is read alone.
  const many = Array.from({ length: 60_000 }, (_, id) => ({ ...dead, id: id + 1, trigger: 'x'.repeat(200) }));
  await writeFile(join(large, TRAIL), lines(many));
  const shown = (await events(large, '--json', '--limit', '2000')).out.trim().split('\n');
  t.equal(shown.length, 2000);
  t.match(JSON.parse(shown.at(-1) ?? ''), { id: 60_000 });
  t.equal(
    (await events(large, '--json', '--node', 'db2', '--limit', '2000')).out.trim().split('\n').length,
    2000,
  );

  for (const make of [
    (file: string) => spawnSync('mkfifo', [file]),
    (file: string) => mkdir(file),
    (file: string) => writeFile(file, ''),
  ]) {
    const strange = await place(t, { [DB]: '' });
    await mkdir(join(strange, 'var/lib/bornemisza/db'), { recursive: true });
    await make(join(strange, TRAIL));
    t.match(await events(strange), { code: 3, out: '', err: /is not running\n {2}next: systemctl start/ });
  }
});

t.test(
  'a user who may not read the trail gets the next step, and root itself reads none of it',
  async (t) => {
    const root = await place(t, { [DB]: '' });
    await mkdir(join(root, 'var/lib/bornemisza/db'), { recursive: true });
    // A link to itself: refused to everybody, also to root.
    await symlink(join(root, TRAIL), join(root, TRAIL));
    const { code, err } = await events(root);
    t.equal(code, 3);
    t.match(
      err,
      /not running, and its trail cannot be read \(ELOOP\)\n.*; to read .*: sudo bornemisza events\n/,
    );

    // Where root did not become the daemon's user (there is none), nothing of the disk is opened.
    const host = { ...fakeHost({ uid: 0 }), becomeDaemon: async () => undefined };
    t.notMatch((await runCli(['events'], { host })).err, 'on the disk');
  },
);
