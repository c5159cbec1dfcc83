import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { parseConfig } from '../../../src/daemon/config/config.ts';
import { becomeAuthority, loadIdentity } from '../../../src/daemon/identity/identity.ts';
import { LEFT } from '../../../src/daemon/identity/roster/removal.ts';
import type { MemberRow } from '../../../src/daemon/control/api.ts';
import type { Log } from '../../../src/daemon/process/log.ts';
import type { Member } from '../../../src/daemon/membership/types.ts';
import { waysOut } from '../../../src/daemon/identity/identity.ts';
import type { RosterChange } from '../../../src/daemon/identity/roster/roster.ts';
import { type RemovalDependencies, removalReport } from '../../../src/daemon/identity/removal-report.ts';
import { driverRoster } from '../../../src/daemon/identity/roster/presented.ts';
import { Registrar } from '../../../src/daemon/identity/admission/registrar.ts';
import { member as row } from '../cli/fake-daemon.ts';
import { NOW_MS } from './cluster.ts';
import { HOUR_MS, PASSPHRASE, pairOf } from './pair.ts';
import { member, viewOf } from '../notification/views.ts';

const { home, recoveryBundle } = await pairOf(t);

/** One of the pair as a daemon has it, and in order what its registrar told. */
async function registrarOf(t: Test, name: 'first' | 'second', otherRow: Partial<MemberRow> = {}) {
  const directory = join(await mkdtemp(join(tmpdir(), 'bm-registrar-')), name);
  t.teardown(() => rm(dirname(directory), { recursive: true, force: true }));
  await cp(join(home, name), directory, { recursive: true });
  const identity = await loadIdentity(directory, NOW_MS);
  const config = parseConfig(
    `[node]\ncluster = "prod"\nhost = "${identity.host}"\n[network]\nprivate_address = ` +
      `"${identity.address}"\nprivate_network = "127.0.0.0/8"\nprivate_device = "lo"\n`,
    'app',
    'app.toml',
  );
  const told: string[] = [];
  let members: Member[] = [];
  let nowMs = 0;
  const other = identity.roster.members().find(({ peerId }) => peerId !== identity.peerId);
  if (other === undefined) throw new Error('two');
  const registrar = new Registrar(identity, {
    clock: { wallMs: () => NOW_MS, monotonicMs: () => nowMs },
    log: {
      info: () => undefined,
      warn: (_about: object, text: string) => told.push(`warned: ${text}`),
    } as unknown as Log,
    driver: {
      get view() {
        return viewOf(members);
      },
      nowMs: () => nowMs,
      admitted: () => told.push('driver: admitted'),
      revoked: (peer) => told.push(`driver: revoked ${peer === other.peerId ? other.name : peer}`),
      rosterChanged: () => told.push('driver: roster'),
    },
    applied: async (rows, removed) =>
      `${rows.length} rows, ${removed === other.peerId ? other.name : removed}`,
    names: { of: (peer) => identity.roster.get(peer)?.name ?? peer },
    node: {
      config,
      rows: () => [
        row({ name: identity.name, self: true, authority: true }),
        row({ name: other.name, rotation: 'out', ...otherRow }),
      ],
      operatorDid: (what) => told.push(`audit: ${what}`),
      rosterChanged: (change) => told.push(`node: revoked ${change.revoked.length}`),
    },
  });
  t.teardown(() => registrar.close());
  return {
    ...{ identity, registrar, told, other },
    at: (ms: number, state: Member['state']) => {
      nowMs = ms;
      members = [member(other.name, { state, sinceMs: 1000, record: { peerId: other.peerId } })];
    },
  };
}

const request = { role: 'app', ttlMs: HOUR_MS / 2 } as const;

t.test('a node that is no authority names one, and makes tokens once it is one', async (t) => {
  const { identity, registrar, told } = await registrarOf(t, 'second');
  await registrar.start();
  await t.rejects(registrar.createTokens(request), { code: 'not-authority', next: 'run this on app1/app' });
  await t.rejects(registrar.tokens(), { code: 'not-authority' });
  await t.rejects(registrar.revokeTokens({ all: true }), { code: 'not-authority' });
  await t.rejects(registrar.adopt(), { code: 'authority-missing' });
  await becomeAuthority(identity, { bundle: recoveryBundle, passphrase: PASSPHRASE }, NOW_MS);
  t.match(await registrar.adopt(), { message: /^app2\/app is an authority: / });
  t.strictSame(told.splice(0), ['node: revoked 0', 'driver: roster', 'audit: app2/app became an authority']);
  t.match(await registrar.adopt(), { message: 'app2/app is already an authority' });
  t.strictSame(told, [], 'and nobody hears of it twice');
  t.match(await registrar.createTokens(request), [{ role: 'app', listen: `${identity.address}:4102` }]);
  t.match(told, [/^audit: a token for one app node was created \(30 minutes/]);
});

t.test(
  'tokens are listed without their secrets, and each that is revoked is in the audit trail',
  async (t) => {
    const { registrar, told } = await registrarOf(t, 'first');
    await registrar.start();
    for (const question of [registrar.tokens(), registrar.revokeTokens({ all: true })])
      t.match(await question, {}, 'an authority answers before it made any');
    told.length = 0;
    const made = await registrar.createTokens({ role: 'db', ttlMs: HOUR_MS, count: 3 });
    const [one, two, three] = made.map(({ id }) => id);
    t.equal(new Set([one, two, three]).size, 3);
    t.strictSame(
      told.splice(0),
      made.map(({ id }) => `audit: a token for one db node was created (60 minutes): ${id}`),
    );
    const listed = JSON.stringify(await registrar.tokens());
    for (const { token } of made) t.notOk(listed.includes(token.slice(-30)), 'no part of a secret');
    t.match(await registrar.revokeTokens({ id: two }), {
      revoked: [two],
      message: /admits nobody$/,
    });
    t.strictSame(told.splice(0), [`audit: the token ${two} for one db node was revoked`]);
    await t.rejects(registrar.revokeTokens({ id: two }), {
      code: 'token-not-open',
      message: /already revoked/,
    });
    await t.rejects(registrar.revokeTokens({ id: '0'.repeat(16) }), {
      code: 'token-unknown',
      next: /token list/,
    });
    t.strictSame(told, [], 'a refusal is no act');
    const states = async () =>
      Object.fromEntries((await registrar.tokens()).tokens.map((row) => [row.id, row.state]));
    t.match(await states(), { [one ?? '']: 'open', [two ?? '']: 'revoked', [three ?? '']: 'open' });
    const order = (await registrar.tokens()).tokens.map(({ id }) => id);
    t.ok(order.indexOf(two ?? '') > 1, 'the open ones first');
    t.strictSame(new Set((await registrar.revokeTokens({ all: true })).revoked), new Set([one, three]));
    t.equal(told.length, 2, 'each of them');
    t.match(await registrar.revokeTokens({ all: true }), { revoked: [], message: /no token is open/ });
  },
);

t.test('who is no authority names one that is alive, else how to become one, and no flag', async (t) => {
  const orders = (registrar: Registrar): (() => Promise<unknown>)[] => [
    () => registrar.createTokens(request),
    () => registrar.tokens(),
    () => registrar.revokeTokens({ all: true }),
    // The guards of an authority would ask for --dead or --force for each of these.
    () => registrar.remove({ node: 'app1' }),
    () => registrar.remove({ node: 'app1', dead: true }),
    () => registrar.remove({ node: 'app1', force: true, dead: true }),
    () => registrar.remove({ node: 'nobody' }),
  ];
  for (const [facts, next] of [
    [{ rotation: 'in' }, 'run this on app1/app'],
    [{ state: 'alive', role: 'db' }, 'run this on app1/app'],
    [{ state: 'dead' }, /^start app1\/app, which is not reachable, or .*: sudo bornemisza authority add$/],
    [{ state: 'absent' }, /^start app1\/app, .*authority add$/],
    [{ state: 'left' }, /^start app1\/app, .*authority add$/],
  ] as const) {
    const { registrar, told } = await registrarOf(t, 'second', facts);
    for (const order of orders(registrar)) await t.rejects(order(), { code: 'not-authority', next });
    await t.rejects(registrar.remove({ node: 'app2' }), { code: 'remove-self' });
    t.strictSame(told, []);
  }
});

t.test('a removal applies on this node first, then the others are notified', async (t) => {
  const { identity, registrar, told, other } = await registrarOf(t, 'first');
  await t.rejects(registrar.remove({ node: 'nobody' }), { code: 'member-unknown' });
  await t.rejects(registrar.remove({ node: 'app1' }), { code: 'remove-self' }, 'by its host');
  t.strictSame(told, []);
  t.match(await registrar.remove({ node: 'app2' }), { message: 'app2/app was removed: 2 rows, app2/app' });
  t.strictSame(told, ['node: revoked 1', 'driver: revoked app2/app', 'driver: roster']);
  t.equal(identity.roster.admits(other.peerId), false);
});

t.test('a removed node learns it from the refusal, and from nothing that is not signed', async (t) => {
  const { identity: first, registrar, other } = await registrarOf(t, 'first');
  const { identity: second } = await registrarOf(t, 'second');
  const changes: RosterChange[] = [];
  const [theirs, own] = [
    driverRoster(first, () => undefined),
    driverRoster(second, (change) => changes.push(change)),
  ];
  t.equal(theirs.revocationOf?.(other.peerId), undefined, 'a member has none');
  await registrar.remove({ node: 'app2' });
  const revocation = theirs.revocationOf?.(other.peerId) ?? new Uint8Array(0);
  for (const forged of [
    new Uint8Array(0),
    Buffer.from('{}'),
    Buffer.from(
      Buffer.from(revocation)
        .toString()
        .replace(/"signature":"./, '"signature":"A'),
    ),
    new Uint8Array(20_000),
  ])
    own.refusedWith?.(forged);
  // Another's revocation is for the roster's own exchange, not for a refusal.
  driverRoster({ ...second, peerId: first.peerId }, () => undefined).refusedWith?.(revocation);
  t.same(changes, []);
  t.notOk(second.roster.isRevoked(second.peerId));
  own.refusedWith?.(revocation);
  t.match(changes, [{ revoked: [second.peerId] }]);
  t.ok(second.roster.isRevoked(second.peerId));
  t.match(waysOut('db'), /join --reset - .*leave --wipe --role db/);
});

t.test('a removal says who refuses the removed node by now, and who does not', async (t) => {
  const { identity, registrar, other } = await registrarOf(t, 'first');
  const said: Record<string, string | Error> = {};
  let converged = true;
  const dependencies: RemovalDependencies = {
    identity,
    reconciler: { converged: () => converged },
    transport: {
      handle: () => undefined,
      request: async (peer) => {
        const answer = said[peer] ?? new Error('no link');
        if (answer instanceof Error) throw answer;
        return Buffer.from(answer);
      },
    },
  };
  const rows = [
    row({ name: 'app1/app', peerId: identity.peerId, self: true }),
    row({ name: 'app2/app', peerId: other.peerId }),
    row({ name: 'app3/app', peerId: 'three' }),
    row({ name: 'db1/db', peerId: 'four' }),
    row({ name: 'db2/db', peerId: 'five', state: 'dead' }),
  ];
  await registrar.remove({ node: 'app2' });
  Object.assign(said, { three: 'applied', four: 'applied' });
  t.equal(
    await removalReport(dependencies, rows, other.peerId),
    'its certificate is refused by app1/app, app3/app, db1/db; not reachable: db2/db (each ' +
      'is notified when it is back)',
  );
  Object.assign(said, { three: 'heard', four: new Error('no link') });
  converged = false;
  t.match(
    await removalReport(dependencies, rows, other.peerId),
    new RegExp(
      /^NOT YET by app3\/app: its HAProxy has not applied it; /.source +
        /NOT YET by db1\/db: does not answer; NOT YET by app1\/app: its HAProxy/.source,
    ),
  );
});

t.test('who left keeps its certificate for two minutes; who is dead keeps it', async (t) => {
  const { identity, registrar, told, other, at } = await registrarOf(t, 'first');
  at(999_999, 'dead');
  await registrar.retireTheLeft();
  at(121_000, 'left');
  await registrar.retireTheLeft();
  t.strictSame(told, []);
  at(121_001, 'left');
  await Promise.all([registrar.retireTheLeft(), registrar.retireTheLeft()]);
  await registrar.retireTheLeft();
  t.strictSame(told, ['node: revoked 1', 'driver: revoked app2/app', 'driver: roster'], 'once');
  t.match(identity.roster.revocations(), [{ peerId: other.peerId, reason: LEFT }]);
});

t.test('who is no authority retires nobody', async (t) => {
  const { registrar, told, at } = await registrarOf(t, 'second');
  at(999_999, 'left');
  await registrar.retireTheLeft();
  t.strictSame(told, []);
});
