import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  admit,
  type Desk,
  JOIN_DOMAIN,
  joinStatement,
  type JoinRequest,
} from '../../../src/daemon/identity/admission/admit.ts';
import { createNodeKey, type NodeKey } from '../../../src/daemon/identity/keys/node-key.ts';
import { Roster } from '../../../src/daemon/identity/roster/roster.ts';
import { createSigningRequest } from '../../../src/daemon/identity/keys/signing-request.ts';
import { TokenStore } from '../../../src/daemon/identity/admission/token-store.ts';
import type { Role } from '../../../src/daemon/membership/types.ts';
import { withoutNamesakes } from '../../../src/roles/namesakes.ts';
import { codeOf, furtherAuthority, NOW_MS, testCluster } from './cluster.ts';

const founder = createNodeKey();
const prod = await testCluster('prod', founder.peerId);
const exporter = Buffer.alloc(32, 7);

async function desk(t: Test, standing: Desk['standing'] = () => 'alive'): Promise<Desk> {
  const directory = t.testdir();
  const tokens = join(directory, 'tokens');
  await mkdir(tokens);
  const roster = new Roster(prod.trust, join(directory, 'roster.json'));
  roster.add(await prod.node('app1', 'app', { nodeKey: founder, address: '10.0.0.1' }));
  const issuer = { peerId: founder.peerId, cluster: 'prod', rootFingerprint: '00'.repeat(32) };
  return {
    authority: prod.authority,
    roster,
    tokens: new TokenStore(tokens, issuer),
    privateNetwork: '10.0.0.0/16',
    standing,
  };
}

async function tokenFor(at: Desk, role: Role) {
  const { id } = await at.tokens.create({
    role,
    ttlMs: 3_600_000,
    address: '10.0.0.1',
    port: 4102,
    nowMs: NOW_MS,
  });
  return { id, role, expired: false };
}

interface Changes {
  host?: string;
  role?: string;
  address?: string;
  csrHost?: string;
  csrRole?: string;
}
function requestBy(key: NodeKey, changes: Changes = {}): JoinRequest {
  const { host = 'db1', role = 'db', address = '10.0.0.9', csrHost = host, csrRole = role } = changes;
  const names = {
    csr: createSigningRequest(prod.tlsKey, csrHost, csrRole as Role),
    host,
    role,
    address,
    version: '0.1.0',
  };
  return {
    ...names,
    publicKey: key.publicKey,
    signature: key.sign(JOIN_DOMAIN, joinStatement(names, exporter)),
  };
}
const from = (remoteAddress = '10.0.0.9') => ({ exporter, remoteAddress, nowMs: NOW_MS });

t.test('a joiner that proves everything comes in, and the roster is on disk', async (t) => {
  const at = await desk(t);
  const key = createNodeKey();
  const { certificate, firstOfRole, change } = await admit(at, requestBy(key), {
    ...from(),
    token: await tokenFor(at, 'db'),
  });
  t.match(certificate, { name: 'db1/db', peerId: key.peerId, address: '10.0.0.9', admittedAtMs: NOW_MS });
  t.ok(firstOfRole);
  t.strictSame(
    change.admitted.map(({ name }) => name),
    ['db1/db'],
  );
});

t.test('a token that was revoked admits nobody, before and after its secret was proved', async (t) => {
  const at = await desk(t);
  const token = await tokenFor(at, 'db');
  await at.tokens.revoke(token.id, NOW_MS);
  const join = (tokens: Desk['tokens']) =>
    codeOf(() => admit({ ...at, tokens }, requestBy(createNodeKey()), { ...from(), token }));
  t.equal(await join(at.tokens), 'token-revoked');
  // The operator was faster by a moment: between the question and the claim.
  let asked = 0;
  const late = Object.assign(Object.create(at.tokens) as Desk['tokens'], {
    claimOf: async (id: string) => ((asked += 1) === 1 ? undefined : at.tokens.claimOf(id)),
    claim: (...given: Parameters<Desk['tokens']['claim']>) => at.tokens.claim(...given),
  });
  t.equal(await join(late), 'token-revoked');
  t.equal(at.roster.members().length, 1);
});

t.test('exactly one joiner of a role learns that it is the first', async (t) => {
  const at = await desk(t);
  const firsts: boolean[] = [];
  for (const host of ['db1', 'db2', 'db3']) {
    const request = requestBy(createNodeKey(), { host, address: `10.0.0.1${host.slice(2)}` });
    firsts.push(
      (await admit(at, request, { ...from(request.address), token: await tokenFor(at, 'db') })).firstOfRole,
    );
  }
  t.strictSame(firsts, [true, false, false]);
});

t.test(
  'a request for what the token or the network does not give is refused, and the token is not used up',
  async (t) => {
    const at = await desk(t);
    const token = await tokenFor(at, 'db');
    const key = createNodeKey();
    const cases: [string, Changes, string, string?][] = [
      ['another role', { role: 'app' }, 'role-mismatch'],
      ['no role', { role: 'root', csrRole: 'db' }, 'role-invalid'],
      ['another role in the signing request', { csrRole: 'app' }, 'request-other-name'],
      ['another host in the signing request', { csrHost: 'db2' }, 'request-other-name'],
      [
        'an address outside the private network',
        { address: '192.0.2.1' },
        'address-outside-network',
        '192.0.2.1',
      ],
      ["another machine's address", { address: '10.0.0.8' }, 'address-not-yours'],
      ['the address of a living member', { address: '10.0.0.1' }, 'address-taken', '10.0.0.1'],
      ['a name with quotes', { host: 'db"1', csrHost: 'db1' }, 'host-invalid'],
      ['a name with a newline', { host: 'db1\nOU=app', csrHost: 'db1' }, 'host-invalid'],
      ['a name with a space', { host: 'db 1', csrHost: 'db1' }, 'host-invalid'],
      ['no address', { address: 'localhost' }, 'address-invalid'],
    ];
    for (const [what, changes, code, remote] of cases) {
      t.equal(await codeOf(() => admit(at, requestBy(key, changes), { ...from(remote), token })), code, what);
    }
    t.match(await at.tokens.list(NOW_MS), [{ state: 'unused' }]);
    t.equal(at.roster.members().length, 1);
  },
);

t.test('no node joins with the PeerId, the proof or the channel of another', async (t) => {
  const at = await desk(t);
  const token = await tokenFor(at, 'db');
  const [own, other] = [createNodeKey(), createNodeKey()];
  const request = requestBy(own);
  const borrowed = { ...request, publicKey: other.publicKey };
  t.equal(await codeOf(() => admit(at, borrowed, { ...from(), token })), 'join-forged');
  t.equal(await codeOf(() => admit(at, { ...request, host: 'db2' }, { ...from(), token })), 'join-forged');
  t.equal(
    await codeOf(() => admit(at, request, { ...from(), exporter: Buffer.alloc(32, 8), token })),
    'join-forged',
  );
  t.equal(
    await codeOf(() => admit(at, { ...request, publicKey: new Uint8Array(3) }, { ...from(), token })),
    'peer-id-malformed',
  );
});

t.test('a token that is too old admits nobody, not even again', async (t) => {
  const at = await desk(t);
  const token = await tokenFor(at, 'db');
  const key = createNodeKey();
  t.equal(
    await codeOf(() => admit(at, requestBy(key), { ...from(), token: { ...token, expired: true } })),
    'token-expired',
  );
  await admit(at, requestBy(key), { ...from(), token });
  t.equal(
    await codeOf(() => admit(at, requestBy(key), { ...from(), token: { ...token, expired: true } })),
    'token-expired',
  );
});

t.test(
  'a repeat by the same node gets the same answer; any other node learns that the token was used',
  async (t) => {
    const at = await desk(t);
    const token = await tokenFor(at, 'db');
    const key = createNodeKey();
    const first = await admit(at, requestBy(key), { ...from(), token });
    const again = await admit(at, requestBy(key), { ...from(), token });
    t.equal(again.certificate.serialHex, first.certificate.serialHex);
    t.equal(again.firstOfRole, true);
    t.notOk(again.change.changed);
    t.equal(await codeOf(() => admit(at, requestBy(createNodeKey()), { ...from(), token })), 'token-used');
    t.equal(
      await codeOf(() => admit(at, requestBy(key, { host: 'db2' }), { ...from(), token })),
      'token-used',
      'nor for another name',
    );
  },
);

t.test('two joins with one token at once: one comes in', async (t) => {
  const at = await desk(t);
  const token = await tokenFor(at, 'db');
  const joins = ['db1', 'db2'].map((host, index) => {
    const request = requestBy(createNodeKey(), { host, address: `10.0.0.2${index}` });
    return codeOf(() => admit(at, request, { ...from(request.address), token }));
  });
  t.strictSame((await Promise.all(joins)).sort(), ['nothing thrown', 'token-used']);
  t.equal(at.roster.members().length, 2);
});

t.test('a name is refused while its holder lives, and taken over when it does not', async (t) => {
  let alive = true;
  const at = await desk(t, () => (alive ? 'alive' : 'gone'));
  const old = createNodeKey();
  await admit(at, requestBy(old), { ...from(), token: await tokenFor(at, 'db') });
  const token = await tokenFor(at, 'db');
  const fresh = createNodeKey();
  t.equal(await codeOf(() => admit(at, requestBy(fresh), { ...from(), token })), 'name-taken');
  alive = false;
  const { change, firstOfRole } = await admit(at, requestBy(fresh), { ...from(), token });
  t.strictSame(change.revoked, [old.peerId], 'the old holder is out for good');
  t.strictSame(
    change.admitted.map(({ peerId }) => peerId),
    [fresh.peerId],
  );
  t.equal(at.roster.byName('db1/db')?.peerId, fresh.peerId);
  t.notOk(at.roster.admits(old.peerId));
  t.notOk(firstOfRole, 'the one that it replaces had made the secrets');
});

t.test('a removed node does not come back with its old key, whatever token it has', async (t) => {
  const at = await desk(t);
  const key = createNodeKey();
  const { certificate } = await admit(at, requestBy(key), { ...from(), token: await tokenFor(at, 'db') });
  at.roster.addRevocation(
    await at.authority.revoke({ ...certificate, serials: [certificate.serialHex] }, 'test', NOW_MS),
  );
  const token = await tokenFor(at, 'db');
  t.equal(await codeOf(() => admit(at, requestBy(key), { ...from(), token })), 'peer-revoked');
});

t.test('a known key joins under its own name only', async (t) => {
  const at = await desk(t);
  const key = createNodeKey();
  const first = await admit(at, requestBy(key), { ...from(), token: await tokenFor(at, 'db') });
  t.equal(
    await codeOf(async () =>
      admit(at, requestBy(key, { host: 'db2' }), { ...from(), token: await tokenFor(at, 'db') }),
    ),
    'peer-known',
  );
  const again = await admit(at, requestBy(key), { ...from(), token: await tokenFor(at, 'db') });
  t.equal(again.certificate.admittedAtMs, first.certificate.admittedAtMs, 'and keeps its place in the order');
});

t.test('an address is given to one machine only, even before that machine has sent a record', async (t) => {
  let standing: 'alive' | 'gone' | 'unheard' = 'unheard';
  const at = await desk(t, () => standing);
  await admit(at, requestBy(createNodeKey()), { ...from(), token: await tokenFor(at, 'db') });
  const token = await tokenFor(at, 'db');
  const other = requestBy(createNodeKey(), { host: 'db2' });
  const join = () => admit(at, other, { ...from(), token });
  await t.rejects(join(), {
    code: 'address-taken',
    message: '10.0.0.9 is the address of db1/db, which was admitted but has not reported yet.',
    next: /bornemisza remove db1\/db --dead/,
  });
  const again = await tokenFor(at, 'db');
  const same = admit(at, requestBy(createNodeKey()), { ...from(), token: again });
  t.match((await same).certificate, { name: 'db1/db' }, 'the same machine may be set up once more');
  standing = 'gone';
  t.match(
    (await join()).certificate,
    { name: 'db2/db', address: '10.0.0.9' },
    'and one that died gives it free',
  );
});

t.test(
  'two authorities that admit one name, or one address, at once: every node uses the first',
  async (t) => {
    const at = await desk(t);
    const secondKey = createNodeKey();
    at.roster.add(await prod.node('app2', 'app', { nodeKey: secondKey, address: '10.0.0.2' }));
    const { authority } = await furtherAuthority(prod.root, prod.trust, secondKey.peerId);
    at.roster.addAuthority(authority.certificate.pem);
    const directory = await mkdtemp(join(tmpdir(), 'bm-desk-'));
    t.teardown(() => rm(directory, { recursive: true, force: true }));
    await mkdir(join(directory, 'tokens'));
    const issuer = { peerId: secondKey.peerId, cluster: 'prod', rootFingerprint: '00'.repeat(32) };
    const roster = new Roster(prod.trust, join(directory, 'roster.json'));
    await roster.merge(at.roster.exportAll());
    const other = { ...at, authority, roster, tokens: new TokenStore(join(directory, 'tokens'), issuer) };
    // Neither hears of the other's admissions until both are done.
    const joins: [Desk, string, string, number][] = [
      [at, 'db1', '10.0.0.11', 20],
      [other, 'db1', '10.0.0.12', 10],
      [at, 'db3', '10.0.0.13', 10],
      [other, 'db4', '10.0.0.13', 30],
    ];
    const keys = await Promise.all(
      joins.map(async ([where, host, address, afterMs]) => {
        const request = requestBy(createNodeKey(), { host, address });
        const token = await tokenFor(where, 'db');
        const arrival = { exporter, remoteAddress: address, nowMs: NOW_MS + afterMs };
        return (await admit(where, request, { ...arrival, token })).certificate.peerId;
      }),
    );
    await roster.merge(at.roster.exportAll());
    await at.roster.merge(roster.exportAll());
    t.equal(at.roster.digest(), roster.digest(), 'both have all');
    t.equal(roster.members().length, 6);
    for (const each of [at.roster, roster]) {
      const members = each.members();
      const { used, namesakes } = withoutNamesakes(members, founder.peerId);
      t.strictSame(used.map(({ name, address }) => `${name} ${address}`).sort(), [
        'app1/app 10.0.0.1',
        'app2/app 10.0.0.2',
        'db1/db 10.0.0.12',
        'db3/db 10.0.0.13',
      ]);
      t.strictSame(
        namesakes.map(({ member, of }) => [member.peerId, of.peerId]),
        [
          [keys[0], keys[1]],
          [keys[3], keys[2]],
        ],
      );
      const [late] = keys;
      const seen = withoutNamesakes(members, late ?? '');
      t.equal(seen.beforeSelf?.peerId, keys[1], 'and the later one knows who was before it');
      t.equal(seen.used.filter(({ name }) => name === 'db1/db').length, 1);
    }
  },
);
