import t from 'tap';
import { parseConfig } from '../../../src/daemon/config/config.ts';
import type { StatusAnswer } from '../../../src/daemon/control/api.ts';
import { initialCheckState } from '../../../src/daemon/health/damping.ts';
import type { Identity } from '../../../src/daemon/identity/identity.ts';
import { createSecrets } from '../../../src/daemon/identity/secrets.ts';
import { EMPTY_LOCAL_STATE } from '../../../src/daemon/local-state.ts';
import {
  noticesOf,
  type OwnTags,
  OwnWord,
  type OwnWordDependencies,
  steadyLoad,
  tagsOf,
} from '../../../src/daemon/node/self-report.ts';
import { EMPTY_GUARD_STATE } from '../../../src/roles/guards.ts';

const quiet: OwnTags = {
  couchdb: undefined,
  secrets: undefined,
  rollout: undefined,
  root: undefined,
  notices: { landslides: [], lastStanding: false, siteCertificateEndMs: undefined },
  holds: false,
  told: undefined,
};

t.test(
  'a node of which there is nothing to tell has no tag; each tag comes with what it tells',
  async (t) => {
    t.strictSame(tagsOf(quiet), {});
    const secrets = await createSecrets();
    t.strictSame(
      Object.keys(
        tagsOf({
          couchdb: { tag: 'serving', restart: 'due' },
          secrets,
          rollout: 'a-rollout',
          root: 'a-root',
          notices: { ...quiet.notices, landslides: ['db'] },
          holds: true,
          told: { notify: 'ok' },
        }),
      ),
      ['couchdb', 'couchdb-restart', 'secrets', 'rollout', 'root', 'notice', 'floating', 'notify'],
    );
    t.strictSame(tagsOf({ ...quiet, couchdb: { tag: 'serving', restart: undefined } }), {
      couchdb: 'serving',
    });
  },
);

t.test('a node says nothing of its secrets but their rank', async (t) => {
  const secrets = await createSecrets();
  const said = JSON.stringify(tagsOf({ ...quiet, secrets }));
  for (const secret of [secrets.cookie, secrets.authSecret, secrets.admin.password, secrets.app.password])
    t.notOk(said.includes(secret));
  t.strictSame(
    tagsOf({ ...quiet, secrets: { kind: 'app', app: secrets.app } as OwnTags['secrets'] }),
    {},
    'role app has none that others could lack',
  );
});

t.test('what one node alone can see is said while it is so', async (t) => {
  const DAY_MS = 86_400_000;
  const wallMs = Date.parse('2026-06-01T00:00:00Z');
  const seen = {
    guards: EMPTY_GUARD_STATE,
    health: 'up',
    announces: () => true,
    siteCertificateEndMs: undefined,
    wallMs,
  } as const;
  t.strictSame(noticesOf(seen), quiet.notices);
  const landslides = [{ role: 'db', sinceMs: 0, gone: ['db1/db'] }] as const;
  t.strictSame(noticesOf({ ...seen, guards: { landslides } }).landslides, ['db']);
  t.equal(noticesOf({ ...seen, health: 'down' }).lastStanding, true);
  t.equal(noticesOf({ ...seen, health: 'down', announces: () => false }).lastStanding, false);
  const ends = (days: number) =>
    noticesOf({ ...seen, siteCertificateEndMs: wallMs + days * DAY_MS }).siteCertificateEndMs;
  t.equal(ends(15), undefined);
  t.equal(ends(13), wallMs + 13 * DAY_MS);
  t.equal(ends(-1), wallMs - DAY_MS, 'one that ended is worse');
});

t.test('the load is said again only when it moved by one', async (t) => {
  t.equal(steadyLoad(0, 0.99), 0);
  t.equal(steadyLoad(0, 1), 100);
  t.equal(steadyLoad(100, 1.5), 100);
  t.equal(steadyLoad(250, 1.5), 150);
});

const config = parseConfig(
  '[node]\ncluster = "shop"\nhost = "app1"\n[network]\nprivate_address = "10.0.0.11"\nprivate_network = "10.0.0.0/24"\nprivate_device = "eth1"\n',
  'app',
  'app.toml',
);

const state = initialCheckState(0);

/** A node at one moment of its life. */
function word(phase: StatusAnswer['phase'], changes: Partial<OwnWordDependencies> = {}): OwnWord {
  const identity = {
    ...{ peerId: 'peer', name: 'app1/app', role: 'app', address: '10.0.0.11' },
    secrets: { get: () => undefined },
  } as unknown as Identity;
  return new OwnWord(identity, {
    clock: { wallMs: () => 1_800_000_000_500, monotonicMs: () => 5000 },
    startedMs: 1000,
    config: () => config,
    phase: () => phase,
    local: { state: { ...EMPTY_LOCAL_STATE, maintenance: true } },
    checks: () => ({
      node: 'down',
      verdicts: [
        { ...state, name: 'haproxy', required: true, health: 'up', detail: '200' },
        { ...state, name: 'database', required: true, health: 'down', detail: 'refused' },
      ],
    }),
    couchdb: () => undefined,
    rollout: { tag: undefined },
    roots: { tag: 'a-root' },
    plugins: () => ({
      announcement: () => ({ announce: true, why: 'the last one' }),
      siteCertificateEndMs: undefined,
    }),
    notifier: () => ({ tags: { notify: 'ok' } }),
    ...changes,
  });
}

t.test('the first record is of a node that is there, and whose programs are not known yet', async (t) => {
  const early = word('starting', { plugins: () => undefined, notifier: () => undefined });
  t.match(early.first('a-start'), {
    ...{ peerId: 'peer', name: 'app1/app', role: 'app', address: '10.0.0.11', port: 4101 },
    ...{ incarnation: 1_800_000_000, sequence: 0, startId: 'a-start', status: 'alive' },
    ...{ health: 'down', maintenance: true },
    services: [
      { name: 'haproxy', health: 'up' },
      { name: 'database', health: 'down' },
    ],
  });
  t.strictSame(early.facts().tags, {}, 'no word about the root before the programs are known');
});

t.test(
  'a node that runs says how far it is with the root, and that it is the last one standing',
  async (t) => {
    t.strictSame(word('running').facts().tags, { root: 'a-root', notice: 'last-standing', notify: 'ok' });
    t.strictSame(word('leaving').facts().tags, { root: 'a-root', notify: 'ok' }, 'nor when it goes');
  },
);

t.test('who goes for longer than a restart has no duty, whatever its health', async (t) => {
  t.strictSame(word('running').situation(), {
    health: 'down',
    edgeAnswers: true,
    maintenance: true,
    leaving: false,
    holds: false,
    upMs: 4000,
  });
  for (const phase of ['leaving', 'left', 'stopping'] as const)
    t.equal(word(phase).situation().leaving, true, phase);
  t.equal(word('starting').situation().leaving, false);
});
