import t from 'tap';
import { initialCheckState } from '../../../src/daemon/health/damping.ts';
import {
  guardEntries,
  type MemberChange,
  memberNews,
  rosterEntries,
  toldEntry,
  verdictEntry,
} from '../../../src/daemon/audit/entries.ts';
import type { Message } from '../../../src/daemon/notification/message.ts';
import type { NodeCertificate } from '../../../src/daemon/identity/keys/chain.ts';
import { member } from '../notification/views.ts';

const names = {
  of: (peer: string) => `${peer}/app`,
  named: (text: string) => text.replaceAll('PEER', 'app2/app'),
};

t.test('a change of a member’s state is audited, a change of its record only starts a turn', async (t) => {
  const change = (was: 'alive' | 'dead' | undefined): MemberChange => ({
    kind: 'changed',
    member: member('app1/app', { state: 'dead' }),
    was,
    why: 'accused by PEER',
  });
  const words = 'app1/app: alive → dead (accused by app2/app)';
  t.strictSame(memberNews(change('alive'), names), {
    reason: words,
    subjects: ['app1/app'],
    entry: { kind: 'member', summary: words, trigger: '', subjects: ['app1/app'], result: 'info' },
  });
  t.equal(memberNews(change(undefined), names).entry?.summary, 'app1/app: new, dead (accused by app2/app)');
  t.strictSame(memberNews({ ...change('dead'), why: '' } as MemberChange, names), {
    reason: 'app1/app: dead',
    subjects: ['app1/app'],
    entry: undefined,
  });
});

t.test('the first sync and a forgotten member are audited', async (t) => {
  t.match(memberNews({ kind: 'synced', with: 'db1' }, names), {
    reason: 'first sync',
    entry: { kind: 'guard', summary: 'first sync done with db1/app: removals are allowed again' },
  });
  t.match(memberNews({ kind: 'reaped', peer: 'x', name: 'db1/db' }, names), {
    reason: 'db1/db reaped',
    entry: { kind: 'member', subjects: ['db1/db'] },
  });
});

t.test('a guard is audited when it begins and when it ends, and not in between', async (t) => {
  const held = (code: string, subject: string, message = subject) => ({
    ...{ code, subjects: [subject], message, next: `release ${subject}` },
  });
  const [a, b, c] = [held('landslide', 'a/db'), held('landslide', 'b/db'), held('not-synced', 'a/db')];
  t.strictSame(guardEntries([a, b], [a, held('landslide', 'b/db', 'said in other words')]), []);
  t.match(guardEntries([a, b], [b, c]), [
    { summary: 'held: a/db', subjects: ['a/db'], result: 'held', error: { code: 'not-synced' } },
    { summary: 'no longer held: a/db', subjects: ['a/db'], result: 'info', error: undefined },
  ]);
});

t.test('a check that fails says what to do, one that passes does not', async (t) => {
  const verdict = { ...initialCheckState(0), name: 'database', required: true, detail: 'refused', streak: 2 };
  t.match(verdictEntry('app1/app', { ...verdict, health: 'down' }, 'up'), {
    summary: 'database is down: refused',
    trigger: '2 checks in a row, was up',
    result: 'failed',
    error: { code: 'check-failed', next: 'find the cause: bornemisza doctor' },
  });
  t.match(verdictEntry('app1/app', { ...verdict, health: 'up' }, 'down'), { result: 'ok', error: undefined });
});

t.test('a sent notification is audited in short form', async (t) => {
  const events = Array.from({ length: 30 }, (_, at) => ({ what: `event ${at}`, subject: `s${at}` }));
  const entry = toldEntry({ subject: 'dead', payload: { events } } as unknown as Message, [
    'mail',
    'webhook',
  ]);
  t.equal(entry.summary, 'notified by mail and webhook: dead');
  t.equal(entry.trigger.split('; ').length, 10);
  t.equal(entry.subjects.length, 30);
});

t.test('every node audits each admission and removal, with the authority that signed it', async (t) => {
  const admitted = { name: 'app9/app', address: '10.0.0.9', issuer: 'app1' } as NodeCertificate;
  const removers = { ...names, removerOf: (peer: string) => `whoever removed ${peer}` };
  t.match(rosterEntries({ admitted: [admitted], revoked: ['db1'] }, removers), [
    {
      summary: 'app9/app was admitted with a token',
      trigger: 'signed by app1/app, for 10.0.0.9',
      subjects: ['app9/app'],
    },
    {
      summary: 'db1/app was removed from the cluster',
      trigger: 'signed by whoever removed db1',
      subjects: ['db1/app'],
    },
  ]);
});
