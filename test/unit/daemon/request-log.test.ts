import t from 'tap';
import { REQUEST_LOG_MOST_MS } from '../../../src/daemon/control/api.ts';
import { logRequests, requestLogEnd } from '../../../src/daemon/control/request-log.ts';
import { EMPTY_LOCAL_STATE, type LocalState } from '../../../src/daemon/local-state.ts';

const NOW_MS = Date.parse('2026-11-30T11:00:00Z');

/** A node, and in order what was done to it. */
function node(full = false) {
  const did: string[] = [];
  let state: LocalState = EMPTY_LOCAL_STATE;
  const dependencies = {
    local: {
      get state() {
        return state;
      },
      update: async (change: Partial<LocalState>) => {
        state = { ...state, ...change };
        if (full) throw new Error('the disk is full');
        did.push('saved');
      },
    },
    node: {
      operatorDid: (what: string) => void did.push(`audit: ${what}`),
      turn: (reason: string) => void did.push(`turn: ${reason}`),
    },
    clock: { wallMs: () => NOW_MS },
  };
  return { dependencies, did, endsAt: (nowMs: number) => requestLogEnd(state, nowMs) };
}

t.test('the log of requests ends by itself, after an hour or when it was asked to', async (t) => {
  const { dependencies, did, endsAt } = node();
  t.equal(endsAt(NOW_MS), undefined, 'it is off by default');
  t.match(await logRequests({ on: true }, { role: 'app' }, dependencies), {
    message: /until 2026-11-30T12:00:00\.000Z: journalctl -u bornemisza-haproxy@app/,
  });
  t.equal(endsAt(NOW_MS), '2026-11-30T12:00:00.000Z');
  t.equal(endsAt(NOW_MS + 3_600_000), undefined);
  t.strictSame(did, [
    'saved',
    'audit: every request is logged until 2026-11-30T12:00:00.000Z',
    'turn: request log on by the operator',
  ]);
  await logRequests({ on: true, forMs: 60_000 }, { role: 'app' }, dependencies);
  t.equal(endsAt(NOW_MS), '2026-11-30T11:01:00.000Z', 'the later order counts');
  t.match(await logRequests({ on: false }, { role: 'app' }, dependencies), {
    message: /only requests that fail/,
  });
  t.equal(endsAt(NOW_MS), undefined);
});

t.test('a clock that was set back does not make the log endless', async (t) => {
  const { dependencies, endsAt } = node();
  await logRequests({ on: true, forMs: REQUEST_LOG_MOST_MS }, { role: 'app' }, dependencies);
  t.type(endsAt(NOW_MS), 'string');
  t.equal(endsAt(NOW_MS - 1), undefined);
});

t.test('what cannot be kept is refused, and the log is as before', async (t) => {
  const { dependencies, did, endsAt } = node(true);
  await t.rejects(logRequests({ on: true }, { role: 'app' }, dependencies), /disk is full/);
  t.equal(endsAt(NOW_MS), undefined);
  t.strictSame(did, [], 'nobody heard of it');
});

t.test('a db node has no edge', async (t) => {
  const { dependencies, did } = node();
  const refused = logRequests({ on: true }, { role: 'db' }, dependencies);
  await t.rejects(refused, { code: 'request-log-no-edge' });
  t.strictSame(did, []);
});
