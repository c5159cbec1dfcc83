import t from 'tap';
import { statusText, warningsOf } from '../../../src/daemon/control/warnings.ts';
import { member } from '../cli/fake-daemon.ts';

t.test(
  'status warns if only one node sends notifications, since none can report its own death',
  async (t) => {
    const nowMs = Date.parse('2026-06-01T00:00:00Z');
    const about = (...tags: Readonly<Record<string, string>>[]): string[] =>
      warningsOf(
        tags.map((each, at) => member({ name: `app${at + 1}/app`, tags: each })),
        nowMs,
      )
        .filter(({ code }) => code === 'one-notifier')
        .map(({ message }) => message);
    t.same(about({}, {}), [], 'nobody was to tell');
    t.same(about({}, { notify: 'ok' }), ['only app2/app sends notifications; if it dies, none is sent']);
    t.same(about({ notify: 'ok' }, { notify: 'failing' }), []);
    t.same(about({ notify: 'ok' }), [], 'a cluster of one has nobody else');
  },
);

t.test('systemd’s status line has the faults, and nothing healthy', async (t) => {
  const self = { name: 'app1/app', health: 'up', maintenance: false, synced: true } as const;
  const rows = [member({ name: 'app1/app', self: true }), member({ name: 'app2/app' })];
  t.equal(statusText(self, rows), 'app1/app up, 2 alive');
  const gone = [member({ name: 'db1/db', state: 'dead' }), member({ name: 'db2/db', state: 'suspect' })];
  t.equal(
    statusText({ ...self, maintenance: true }, [...rows, ...gone]),
    'app1/app up (maintenance), 2 alive, 2 missing',
  );
  const left = member({ name: 'db3/db', state: 'left' });
  t.equal(
    statusText({ ...self, health: 'down', synced: false }, [...rows, left]),
    'app1/app down, 2 alive, waiting for the first peer',
  );
});
