import { appendFile, mkdir, readFile, rmdir, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { AuditTrail, isAbout, messageOf, type NewAuditEntry } from '../../../src/daemon/audit/trail.ts';
import type { AuditEntry } from '../../../src/daemon/control/api.ts';

const clock = { monotonicMs: () => 0, wallMs: () => Date.UTC(2026, 0, 1) };
const entry = (summary: string, subjects: readonly string[] = []): NewAuditEntry => ({
  kind: 'daemon',
  summary,
  trigger: '',
  subjects,
  result: 'info',
});

async function trail(file: string) {
  const problems: string[] = [];
  const announced: AuditEntry[] = [];
  const audit = new AuditTrail(
    { file },
    { clock, announce: (each) => announced.push(each), onProblem: (error) => problems.push(error.message) },
  );
  await audit.load();
  return { audit, problems, announced };
}
const summaries = (entries: readonly AuditEntry[]): string[] => entries.map((each) => each.summary);

t.test('entries are numbered on across restarts, and on disk 0600', async (t) => {
  const file = join(t.testdir(), 'audit.jsonl');
  const first = await trail(file);
  t.match(first.audit.append(entry('one')), { id: 1, at: '2026-01-01T00:00:00.000Z' });
  first.audit.append(entry('two'));
  await first.audit.close();
  t.equal((await stat(file)).mode & 0o777, 0o600);
  const second = await trail(file);
  t.equal(second.audit.append(entry('three')).id, 3);
  t.strictSame(summaries(second.audit.query()), ['one', 'two', 'three']);
  t.strictSame([first.problems, second.problems], [[], []]);
  t.strictSame(summaries(first.announced), ['one', 'two']);
  await second.audit.close();
});

t.test('a file that was cut in half loses only the half line, and that is reported', async (t) => {
  const file = join(t.testdir(), 'audit.jsonl');
  const before = await trail(file);
  for (const name of ['one', 'two', 'three']) before.audit.append(entry(name));
  await before.audit.close();
  await truncate(file, (await stat(file)).size - 20);

  const cut = await trail(file);
  t.strictSame(cut.problems, [`1 lines of ${file} are not audit entries and were skipped`]);
  cut.audit.append(entry('after the cut'));
  await cut.audit.close();
  const after = await trail(file);
  t.strictSame(
    summaries(after.audit.query()),
    ['one', 'two', 'after the cut'],
    'the next line is not drawn in',
  );
  t.equal(after.audit.append(entry('next')).id, 4);
  await after.audit.close();
});

t.test('what is no entry is passed over, and breaks no later question', async (t) => {
  const file = join(t.testdir(), 'audit.jsonl');
  const good = JSON.stringify({ id: 7, at: 'x', summary: 'good', subjects: ['db1/db'], trigger: '' });
  const bad = [
    'null',
    '3',
    '[]',
    '{}',
    'garbage',
    '{"id":"8"}',
    good.replace('"db1/db"', '1'),
    '\u0000\u0000',
  ];
  await writeFile(file, `${[...bad, good].join('\n')}\n\n`);
  const { audit, problems } = await trail(file);
  t.match(problems, [/^8 lines of/]);
  t.strictSame(summaries(audit.query({ subject: 'db1' })), ['good']);
  t.equal(audit.append(entry('next')).id, 8);
  await audit.close();
});

t.test('a full disk: the trail continues in memory, and later on disk on a new line', async (t) => {
  const directory = t.testdir();
  const file = join(directory, 'audit.jsonl');
  const { audit, problems } = await trail(file);
  audit.append(entry('one'));
  await audit.close();
  // What a full disk leaves: part of a line, and an error.
  await appendFile(file, '{"id":2,"at":"20');
  const failing = await trail(join(directory, 'taken'));
  await mkdir(join(directory, 'taken'));
  failing.audit.append(entry('not written'));
  await failing.audit.close();
  t.match(failing.problems, [/EISDIR/]);
  t.strictSame(summaries(failing.audit.query()), ['not written']);
  await rmdir(join(directory, 'taken'));
  failing.audit.append(entry('written'));
  await failing.audit.close();
  const text = await readFile(join(directory, 'taken'), 'utf8');
  t.match(text, /^\n\{.*"written".*\}\n$/);
  t.strictSame(problems, []);
});

t.test('the file rolls over, one older file is kept, and numbers go on', async (t) => {
  const file = join(t.testdir(), 'audit.jsonl');
  const { audit, problems } = await trail(file);
  const words = 'x'.repeat(100_000);
  for (let count = 0; count < 45; count += 1) audit.append(entry(words));
  await audit.close();
  for (const path of [file, `${file}.1`]) {
    const { size } = await stat(path);
    t.ok(size > 0 && size <= 2 * 1024 * 1024, `${path}: ${size}`);
  }
  t.strictSame(problems, []);
  const again = await trail(file);
  t.equal(again.audit.append(entry('next')).id, 46);
  const ids = again.audit.query().map((each) => each.id);
  t.strictSame(
    ids,
    [...ids].sort((a, b) => a - b),
    'oldest first, over both files',
  );
  await again.audit.close();
});

t.test('memory is bounded, and questions are answered from its newest end', async (t) => {
  const { audit } = await trail(join(t.testdir(), 'audit.jsonl'));
  const heard: number[] = [];
  const unfollow = audit.follow((each) => heard.push(each.id));
  for (let count = 0; count < 2005; count += 1)
    audit.append(entry('e', [count % 2 === 0 ? 'a/app' : 'b/db']));
  unfollow();
  audit.append(entry('unheard'));
  t.equal(heard.length, 2005);
  t.equal(audit.query().length, 2000);
  t.strictSame(
    audit.query({ subject: 'a', limit: 2 }).map(({ id }) => id),
    [2003, 2005],
  );
  t.strictSame(
    audit.query({ sinceId: 2004 }).map(({ id }) => id),
    [2005, 2006],
  );
  await audit.close();
});

t.test('what an entry is about, and how it reads', async (t) => {
  const about = { id: 1, at: '', ...entry('s', ['app1/app']), plugin: 'haproxy' };
  for (const name of ['app1/app', 'app1', 'haproxy']) t.ok(isAbout(about, name), name);
  for (const name of ['app', 'app1/', 'app11', '']) t.notOk(isAbout(about, name), name);
  const error = { code: 'c', message: 'no space', next: 'free some' };
  t.equal(
    messageOf({ ...about, summary: 'reload', trigger: 'db1 died', durationMs: 12.4, error }),
    'reload in 12 ms: no space -- free some [db1 died]',
  );
});
