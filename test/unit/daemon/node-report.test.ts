import t from 'tap';
import { warningsOf } from '../../../src/daemon/node-report.ts';
import { member } from '../cli/fake-daemon.ts';

t.test('status warns where one node alone tells people, since nobody tells of its own death', async (t) => {
  const nowMs = Date.parse('2026-06-01T00:00:00Z');
  const about = (...tags: Readonly<Record<string, string>>[]): string[] =>
    warningsOf(
      tags.map((each, at) => member({ name: `app${at + 1}/app`, tags: each })),
      nowMs,
    ).filter((text) => text.includes('[notify]'));
  t.same(about({}, {}), [], 'nobody was to tell');
  t.same(about({}, { notify: 'ok' }), [
    'app2/app alone has [notify]: nobody tells when it is the one that dies',
  ]);
  t.same(about({ notify: 'ok' }, { notify: 'failing' }), []);
  t.same(about({ notify: 'ok' }), [], 'a cluster of one has nobody else');
});
