import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmod, cp, mkdir, readFile, unlink, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { createTlsKey, keyPem } from '../../src/daemon/identity/keys/certificates.ts';
import { createAuthority, installAuthority } from '../../src/daemon/identity/root/authority.ts';
import { initCluster, writeKeys } from '../../src/daemon/identity/root/init-cluster.ts';
import { openNewestRoot, type Recovery } from '../../src/daemon/identity/root/open-root.ts';
import { type Identity, loadIdentity, removeMember } from '../../src/daemon/identity/identity.ts';
import { createNodeKey } from '../../src/daemon/identity/keys/node-key.ts';
import type { RosterChange } from '../../src/daemon/identity/roster/roster.ts';
import { beginState, resetState, stateOf } from '../../src/daemon/identity/state.ts';
import { formatToken, parseToken, proofOf } from '../../src/daemon/identity/admission/tokens.ts';
import type { Role } from '../../src/daemon/membership/types.ts';
import { AdmissionListener, type AdmissionOptions } from '../../src/daemon/identity/admission/listener.ts';
import { encodeHello, EXPORTER_BYTES, EXPORTER_LABEL } from '../../src/daemon/identity/admission/frames.ts';
import { joinCluster, type JoinOptions } from '../../src/daemon/identity/admission/join.ts';
import { freePort } from '../support/free-port.ts';
import { codeOf } from '../unit/identity/cluster.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

const HOUR_MS = 3_600_000;
const run = promisify(execFile);
const base = t.testdir();

/** Each test has its own issuer, on an address of its own in 127.0.0.0/8. */
interface Issuer {
  readonly identity: Identity;
  readonly listener: AdmissionListener;
  readonly port: number;
  readonly changes: RosterChange[];
  readonly notes: string[];
  /** Wall time of the issuer. */
  clock: { nowMs: number | undefined };
  token(role?: Role, ttlMs?: number): Promise<string>;
  /** Joins with what is usual, on a fresh state directory. */
  join(token: string, options?: Partial<JoinOptions>): ReturnType<typeof joinCluster>;
}

/** A join that stopped after it had made its keys: saves half a second of RSA for each joiner that needs no own. */
const tlsKey = keyPem(await createTlsKey());
async function prepared(stateDir: string): Promise<void> {
  await beginState(stateDir, 'join');
  await writeKeys(stateDir, createNodeKey().pem, tlsKey);
}

let issuers = 0;
let joiners = 0;

/**
 * Two clusters of the same name on two roots, and one of another name, made once: each issuer starts from a copy of
 * one.
 */
const [home, twinHome, otherHome] = ['home', 'twin', 'other'].map((name) => join(base, name)) as [
  string,
  string,
  string,
];
const bundles = new Map<string, Recovery>();
for (const stateDir of [home, twinHome, otherHome]) {
  const { recoveryBundle: bundle, passphrase } = await initCluster({
    stateDir,
    cluster: stateDir === otherHome ? 'other' : 'prod',
    host: 'app0',
    role: 'app',
    address: '127.0.0.1',
    nowMs: Date.now(),
  });
  bundles.set(stateDir, { bundle, passphrase });
}

async function issuer(t: Test, options: Partial<AdmissionOptions> = {}, from = home): Promise<Issuer> {
  issuers += 1;
  const stateDir = join(base, `issuer${issuers}`);
  await cp(from, stateDir, { recursive: true });
  await chmod(stateDir, 0o700);
  const clock: Issuer['clock'] = { nowMs: undefined };
  const nowMs = () => clock.nowMs ?? Date.now();
  const identity = await loadIdentity(stateDir, Date.now());
  const port = await freePort();
  const changes: RosterChange[] = [];
  const notes: string[] = [];
  const listener = new AdmissionListener({
    identity,
    address: '127.0.0.1',
    port,
    privateNetwork: '127.0.0.0/16',
    standing: () => 'alive',
    seeds: () => [{ peerId: identity.peerId, address: '127.0.0.1', port: 4101 }],
    onAdmitted: (change) => changes.push(change),
    onNote: (code, detail) => notes.push(`${code} ${detail}`),
    nowMs,
    ...options,
  });
  t.teardown(() => listener.close());
  const token = async (role: Role = 'db', ttlMs = HOUR_MS) => {
    const made = await identity.tokens?.create({ role, ttlMs, address: '127.0.0.1', port, nowMs: nowMs() });
    await listener.refresh();
    return made?.token ?? '';
  };
  const joining: Issuer['join'] = async (text, more = {}) => {
    joiners += 1;
    const state = join(base, `joiner${joiners}`);
    const count = joiners;
    await prepared(state);
    const usual = {
      host: `db${count}`,
      address: `127.0.0.${10 + count}`,
      version: '0.1.0',
      nowMs: () => Date.now(),
    };
    return joinCluster({ token: text, stateDir: state, timeoutMs: 15_000, ...usual, ...more });
  };
  return { identity, listener, port, changes, notes, clock, token, join: joining };
}

/** A socket of an attacker, from its own address; errors are what it must live with. */
function attacker(t: Test, port: number, localAddress = '127.0.0.66'): Socket {
  const socket = connect({ host: '127.0.0.1', port, localAddress });
  socket.on('error', () => undefined);
  socket.on('data', () => undefined);
  t.teardown(() => socket.destroy());
  return socket;
}

/** A TLS channel as a stranger opens it. */
async function channel(t: Test, port: number, localAddress = '127.0.0.66'): Promise<TLSSocket> {
  const socket = connectTls({
    socket: attacker(t, port, localAddress),
    rejectUnauthorized: false,
    minVersion: 'TLSv1.3',
  });
  socket.on('error', () => undefined);
  t.teardown(() => socket.destroy());
  await once(socket, 'secureConnect');
  return socket;
}

/** All that the other side says until it hangs up. */
/** All that came until the end. A reset is one too: bytes of ours were still on their way. */
async function heard(socket: TLSSocket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => undefined);
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
  return Buffer.concat(chunks);
}

t.test('a node joins with a token and nothing else', async (t) => {
  const at = await issuer(t);
  const stateDir = join(base, 'plain');
  const joined = await at.join(await at.token(), { stateDir, host: 'db1', address: '127.0.0.5' });
  t.match(joined, { cluster: 'prod', role: 'db', name: 'db1/db', firstOfRole: true });
  t.strictSame(joined.seeds, [{ peerId: at.identity.peerId, address: '127.0.0.1', port: 4101 }]);
  const own = await loadIdentity(stateDir, Date.now());
  t.match(own, {
    name: 'db1/db',
    address: '127.0.0.5',
    peerId: joined.peerId,
    founder: false,
    authority: undefined,
  });
  t.equal(own.roster.digest(), at.identity.roster.digest());
  t.equal(own.secrets.get()?.kind, 'db', 'the first db node made the secrets of its role');
  t.strictSame(
    at.changes.flatMap(({ admitted }) => admitted.map(({ name }) => name)),
    ['db1/db'],
  );
  const second = await at.join(await at.token());
  t.notOk(second.firstOfRole);
  const after = await loadIdentity(at.identity.stateDir, Date.now());
  t.equal(after.roster.members().length, 3, 'the issuer has it on disk');
});

t.test('the port is open while a token lives, and at no other time', async (t) => {
  const at = await issuer(t);
  await at.listener.refresh();
  t.notOk(at.listener.open);
  t.equal(await refusedBy(at.port), true);
  await at.token('db', 60_000);
  t.ok(at.listener.open);
  t.equal(await refusedBy(at.port), false);
  at.clock.nowMs = Date.now() + 61_000;
  await at.listener.refresh();
  t.notOk(at.listener.open);
  t.equal(await refusedBy(at.port), true);
});

function refusedBy(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.once('connect', () => resolve(false));
    socket.once('error', () => resolve(true));
    socket.once('close', () => socket.destroy());
    socket.once('connect', () => socket.destroy());
  });
}

t.test('the listener closes by itself when the last token ends', async (t) => {
  const at = await issuer(t);
  at.clock.nowMs = Date.now();
  await at.token('db', 60_000);
  // The issuer's clock stands a moment before the end of the token when its timer is set, and after it when that rings.
  at.clock.nowMs += 59_900;
  await at.listener.refresh();
  t.ok(at.listener.open);
  at.clock.nowMs += 200;
  await until(() => !at.listener.open, { what: 'closed' });
});

t.test(
  'expired, used, truncated, foreign and forged tokens have their own errors, and none admits a node',
  async (t) => {
    const at = await issuer(t);
    const token = await at.token();
    t.equal(await codeOf(() => at.join(token.slice(0, -9))), 'token-truncated');
    t.equal(await codeOf(() => at.join('hunter2')), 'token-not-a-token');
    t.equal(await codeOf(() => at.join(token, { role: 'app' })), 'role-mismatch');
    await at.join(token);
    t.equal(await codeOf(() => at.join(token)), 'token-used');

    const old = await at.token('db', 60_000);
    at.clock.nowMs = Date.now() + 120_000;
    t.equal(await codeOf(() => at.join(old)), 'token-expired', 'while another keeps the port open');
    at.clock.nowMs = undefined;

    t.equal(
      await codeOf(async () => at.join(await tokenOfAnother(t, at, twinHome))),
      'issuer-other-root',
      "another cluster of the same name answers at the issuer's address",
    );
    t.equal(
      await codeOf(async () => at.join(await tokenOfAnother(t, at, otherHome))),
      'issuer-other-cluster',
    );
    t.equal(at.identity.roster.members().length, 2);
  },
);

/** A token of another cluster, at whose issuer's address `at` answers by now. */
async function tokenOfAnother(t: Test, at: Issuer, from: string): Promise<string> {
  const other = await issuer(t, {}, from);
  const token = await other.token();
  await other.listener.close();
  const moved = new AdmissionListener({ ...quiet(at), port: other.port });
  t.teardown(() => moved.close());
  await moved.refresh();
  return token;
}

function quiet(at: Issuer): AdmissionOptions {
  return {
    identity: at.identity,
    address: '127.0.0.1',
    port: at.port,
    privateNetwork: '127.0.0.0/16',
    standing: () => 'alive',
    seeds: () => [],
    onAdmitted: () => undefined,
    onNote: () => undefined,
    nowMs: () => Date.now(),
  };
}

t.test('an issuer that is gone is named, and so is a token that ended meanwhile', async (t) => {
  const at = await issuer(t);
  const token = await at.token();
  await at.listener.close();
  t.equal(await codeOf(() => at.join(token)), 'issuer-unreachable');
  t.equal(await codeOf(() => at.join(token, { nowMs: () => Date.now() + 2 * HOUR_MS })), 'token-expired');
});

t.test('an address that is not on this host is refused before anything is sent', async (t) => {
  const at = await issuer(t);
  const token = await at.token();
  t.equal(await codeOf(() => at.join(token, { address: '192.0.2.77' })), 'address-not-here');
  t.equal((await at.identity.tokens?.list(Date.now()))?.[0]?.state, 'unused');
});

t.test('an address outside the private network is refused by the issuer', async (t) => {
  const at = await issuer(t);
  const token = await at.token();
  t.equal(await codeOf(() => at.join(token, { address: '127.1.0.5' })), 'address-outside-network');
  t.equal((await at.identity.tokens?.list(Date.now()))?.[0]?.state, 'unused');
  t.ok(await at.join(token), 'and the token still works');
});

t.test('hostile host names get nowhere', async (t) => {
  const at = await issuer(t);
  const token = await at.token();
  for (const host of ['db"1', "db'1", 'db 1', 'db1\nOU=app', '$(reboot)', '../../etc', 'db1;', '']) {
    t.equal(await codeOf(() => at.join(token, { host })), 'host-invalid', JSON.stringify(host));
  }
  t.ok(await at.join(token));
});

t.test('two joins with one token at once: exactly one comes in', async (t) => {
  const at = await issuer(t);
  const token = await at.token();
  const ends = await Promise.all([
    codeOf(() => at.join(token)),
    codeOf(() => at.join(token)),
    codeOf(() => at.join(token)),
  ]);
  t.strictSame(ends.sort(), ['nothing thrown', 'token-used', 'token-used']);
  t.equal(at.identity.roster.members().length, 2);
});

/** A member of the same cluster that became an authority by the recovery bundle. */
async function furtherIssuer(t: Test, at: Issuer): Promise<Issuer> {
  const stateDir = join(base, `further${issuers}`);
  const { peerId } = await at.join(await at.token('app'), { stateDir, host: 'app1' });
  const recovery = bundles.get(home);
  if (recovery === undefined) throw new Error('home has a bundle');
  const root = await openNewestRoot(at.identity, recovery);
  await installAuthority(stateDir, await createAuthority(root, peerId, Date.now()));
  return issuer(t, {}, stateDir);
}

t.test('a token opens nothing at another authority, also while it is used at its own', async (t) => {
  const at = await issuer(t);
  const other = await furtherIssuer(t, at);
  await other.token();
  const token = await at.token();
  const { port, identity } = other;
  const elsewhere = { address: '127.0.0.1', port };
  const led = (peerId: string): string =>
    formatToken({ ...parseToken(token), issuer: { ...elsewhere, peerId } });
  const ends = await Promise.all([
    codeOf(() => at.join(token)),
    codeOf(() => other.join(led(at.identity.peerId))),
    codeOf(() => other.join(led(identity.peerId))),
  ]);
  t.strictSame(ends, ['nothing thrown', 'issuer-other-node', 'token-unknown']);
  await identity.roster.merge(at.identity.roster.exportAll());
  for (const { roster } of [at.identity, identity])
    t.strictSame(
      roster
        .members()
        .map(({ role }) => role)
        .sort(),
      ['app', 'app', 'db'],
    );
});

t.test('an answer that was lost is given again to the same node', async (t) => {
  const at = await issuer(t);
  const token = await at.token();
  const stateDir = join(base, 'lost');
  const options = { stateDir, host: 'db1', address: '127.0.0.7' };
  const first = await at.join(token, options);
  // As if the machine had died between the answer and the last file.
  await unlink(join(stateDir, 'cluster.json'));
  await writeFile(join(stateDir, 'unfinished.json'), '{"version":1,"what":"join"}', { mode: 0o600 });
  await unlink(join(stateDir, 'chain.pem'));
  const again = await at.join(token, options);
  t.equal(again.peerId, first.peerId);
  t.ok(again.firstOfRole);
  t.equal(await stateOf(stateDir), 'complete');
  t.equal(at.identity.roster.members().length, 2);
  t.equal(await codeOf(() => at.join(token, options)), 'already-member');
});

t.test('an issuer that disconnects in the middle is asked again until it answers', async (t) => {
  const at = await issuer(t);
  const token = await at.token();
  await at.listener.close();
  let cuts = 0;
  const cutting = createServer((socket) => {
    cuts += 1;
    socket.once('data', () => socket.destroy());
    socket.on('error', () => undefined);
  }).listen(at.port, '127.0.0.1');
  await once(cutting, 'listening');
  const joining = at.join(token);
  await until(() => cuts >= 3, { what: 'three attempts' });
  await new Promise((resolve) => {
    cutting.close(resolve);
  });
  const listener = new AdmissionListener(quiet(at));
  t.teardown(() => listener.close());
  await listener.refresh();
  t.match(await joining, { role: 'db' });
});

t.test('a join that was refused can be tried again with the next token, with the same key', async (t) => {
  const at = await issuer(t);
  const used = await at.token();
  await at.join(used);
  const stateDir = join(base, 'again');
  const options = { stateDir, host: 'db1', address: '127.0.0.8' };
  t.equal(await codeOf(() => at.join(used, options)), 'token-used');
  t.equal(await stateOf(stateDir), 'unfinished');
  const key = await readFile(join(stateDir, 'node.key'), 'utf8');
  t.match(await at.join(await at.token(), options), { name: 'db1/db' });
  t.equal(await readFile(join(stateDir, 'node.key'), 'utf8'), key);
});

t.test('an interrupted join replaces its half-written key', async (t) => {
  const at = await issuer(t);
  const stateDir = join(base, 'half');
  await mkdir(stateDir, { mode: 0o700 });
  await writeFile(join(stateDir, 'unfinished.json'), '{"version":1,"what":"join"}', { mode: 0o600 });
  await writeFile(join(stateDir, 'node.key'), '-----BEGIN PRIV', { mode: 0o600 });
  t.match(await at.join(await at.token(), { stateDir }), { role: 'db' });
  t.ok(await loadIdentity(stateDir, Date.now()));
});

t.test('a removed node can join again only with a new key and a new token', async (t) => {
  const at = await issuer(t);
  const stateDir = join(base, 'removed');
  const options = { stateDir, host: 'db1', address: '127.0.0.9' };
  const first = await at.join(await at.token(), options);
  await removeMember(at.identity, 'db1/db', 'test', Date.now());
  t.equal(await codeOf(async () => at.join(await at.token(), options)), 'already-member');
  await resetState(stateDir, Date.now());
  const second = await at.join(await at.token(), options);
  t.not(second.peerId, first.peerId);
  t.notOk(at.identity.roster.admits(first.peerId));
});

t.test('silent, slow, garbled, oversized and endless strangers keep no joiner out', async (t) => {
  const at = await issuer(t, { conversationMs: 3000 });
  const token = await at.token();
  const slow = await channel(t, at.port, '127.0.0.91');
  const drip = setInterval(() => slow.writable && slow.write('x'), 50);
  t.teardown(() => clearInterval(drip));
  const endless = await channel(t, at.port, '127.0.0.92');
  endless.write(Buffer.alloc(1_000_000));
  for (let count = 0; count < 60; count += 1) attacker(t, at.port, `127.0.0.${100 + (count % 10)}`);
  for (let count = 0; count < 10; count += 1) attacker(t, at.port, '127.0.0.90').write(randomBytes(100_000));
  const startedMs = performance.now();
  t.match(await at.join(token), { role: 'db' });
  t.comment(`joined in ${Math.round(performance.now() - startedMs)} ms`);
  await until(() => endless.destroyed || endless.closed, { what: 'the endless one is cut' });
  await until(() => slow.destroyed || slow.closed, { what: 'the slow one is cut' });
});

t.test('strangers at the very address of the joiner do not keep it out either', async (t) => {
  const at = await issuer(t);
  const token = await at.token();
  for (let count = 0; count < 12; count += 1) attacker(t, at.port, '127.0.0.88');
  t.match(await at.join(token, { address: '127.0.0.88' }), { role: 'db' });
});

t.test('a slow conversation ends at its deadline, however lively it is', async (t) => {
  const at = await issuer(t, { conversationMs: 1000 });
  await at.token();
  const socket = await channel(t, at.port);
  const startedMs = performance.now();
  const drip = setInterval(() => socket.writable && socket.write('x'), 100);
  t.teardown(() => clearInterval(drip));
  await heard(socket);
  t.ok(performance.now() - startedMs < 5000);
});

t.test('a joiner without a valid token gets one sentence and learns nothing', async (t) => {
  const at = await issuer(t);
  const token = parseToken(await at.token());
  const unknown = await channel(t, at.port, '127.0.0.67');
  unknown.write(encodeHello({ tokenId: '0123456789abcdef', proof: randomBytes(32) }));
  const guessed = await channel(t, at.port, '127.0.0.68');
  guessed.write(encodeHello({ tokenId: token.id, proof: randomBytes(32) }));
  const [one, other] = await Promise.all([heard(unknown), heard(guessed)]);
  t.match(one.toString(), '"code":"token-unknown"');
  t.strictSame(one, other, 'a known token and an unknown one look alike');
});

t.test('a proof overheard on one channel is worth nothing on another', async (t) => {
  const at = await issuer(t);
  const token = parseToken(await at.token());
  const first = await channel(t, at.port);
  const exporter = first.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0));
  const second = await channel(t, at.port);
  second.write(encodeHello({ tokenId: token.id, proof: proofOf(token, exporter) }));
  t.match((await heard(second)).toString(), '"code":"token-unknown"');
});

t.test(
  'with the token proved, nonsense is still refused in a sentence and the token stays unused',
  async (t) => {
    const at = await issuer(t);
    const text = await at.token();
    const token = parseToken(text);
    const frames = [
      Buffer.from([0, 0, 0, 0]),
      Buffer.from([0xff, 0xff, 0xff, 0xff]),
      framed('{}'),
      framed('['.repeat(50_000)),
      framed('not json'),
      framed(
        JSON.stringify({
          csr: 'x',
          publicKey: 'A'.repeat(44),
          signature: 'A'.repeat(88),
          host: 'a',
          role: 'db',
          address: '127.0.0.3',
          version: '',
        }),
      ),
    ];
    for (const frame of frames) {
      const socket = await channel(t, at.port);
      const exporter = socket.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0));
      socket.write(encodeHello({ tokenId: token.id, proof: proofOf(token, exporter) }));
      socket.write(frame);
      t.match(
        (await heard(socket)).toString(),
        /"admitted":false,"code":"(admission-malformed|peer-id-malformed|join-forged)"/,
      );
    }
    t.equal((await at.identity.tokens?.list(Date.now()))?.[0]?.state, 'unused');
    t.ok(await at.join(text));
  },
);

function framed(text: string): Buffer {
  const body = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length, 0);
  return Buffer.concat([length, body]);
}

t.test('an older TLS is refused', async (t) => {
  const at = await issuer(t);
  await at.token();
  const socket = connectTls({
    socket: attacker(t, at.port),
    rejectUnauthorized: false,
    maxVersion: 'TLSv1.2',
  });
  const failed = new Promise((resolve) => {
    socket.once('error', () => resolve('refused'));
    socket.once('secureConnect', () => resolve('accepted'));
  });
  t.equal(await failed, 'refused');
});

t.test('a port that another program holds is named, and tried again when it is free', async (t) => {
  const at = await issuer(t);
  const squatter = createServer().listen(at.port, '127.0.0.1');
  await once(squatter, 'listening');
  t.equal(await codeOf(() => at.token()), 'admission-port-in-use');
  await new Promise((resolve) => {
    squatter.close(resolve);
  });
  await at.listener.refresh();
  t.ok(at.listener.open);
  const elsewhere = new AdmissionListener({ ...quiet(at), address: '192.0.2.1' });
  t.teardown(() => elsewhere.close());
  t.equal(await codeOf(() => elsewhere.refresh()), 'address-not-here');
});

t.test('only an authority admits', async (t) => {
  const at = await issuer(t);
  const stateDir = join(base, 'no-authority');
  await at.join(await at.token(), { stateDir });
  const identity = await loadIdentity(stateDir, Date.now());
  t.equal(await codeOf(() => new AdmissionListener({ ...quiet(at), identity })), 'not-authority');
});

/** A file of identity, as a specifier in the text of a program. */
const sourceOf = (file: string): string =>
  JSON.stringify(new URL(`../../src/daemon/identity/${file}`, import.meta.url).pathname);

t.test('a disk that is full ends an init in one sentence, and the next one succeeds', async (t) => {
  const ownMounts = process.getuid?.() === 0 ? ['--mount'] : ['--user', '--map-root-user', '--mount'];
  const mount = join(base, 'small');
  await mkdir(mount);
  const script = `
    import { initCluster } from ${sourceOf('root/init-cluster.ts')};
    const names = { cluster: 'prod', host: 'db1', role: 'db', address: '10.0.0.1' };
    const request = { stateDir: ${JSON.stringify(mount)} + '/db', ...names, nowMs: Date.now() };
    const end = await initCluster(request).then(() => 'done', (error) => error.code + ' ' + error.retry);
    console.log(end);`;
  const file = join(base, 'init.ts');
  await writeFile(file, script);
  const commands =
    `mount -t tmpfs -o size=16k,mode=755 tmpfs ${mount} && ${process.execPath} ${file} && mount -o ` +
    `remount,size=1m ${mount} && ${process.execPath} ${file}`;
  const { stdout } = await run('unshare', [...ownMounts, 'sh', '-c', commands], { timeout: 60_000 });
  t.strictSame(stdout.trim().split('\n'), ['disk-full true', 'done']);
});

t.test('a joiner killed in the middle joins again with the same token', async (t) => {
  const at = await issuer(t);
  const token = await at.token();
  const stateDir = join(base, 'killed');
  const script = `
    import { joinCluster } from ${sourceOf('admission/join.ts')};
    const own = { stateDir: ${JSON.stringify(stateDir)}, host: 'db1', address: '127.0.0.6', version: '0.1.0' };
    await joinCluster({ token: process.argv[2], ...own, nowMs: () => Date.now() });`;
  const file = join(base, 'join.ts');
  await writeFile(file, script);
  const child = spawnWithUs(process.execPath, [file, token], { stdio: 'ignore' });
  await until(() => at.changes.length > 0, { what: 'the issuer has let it in' });
  child.kill('SIGKILL');
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  const end = await codeOf(() => at.join(token, { stateDir, host: 'db1', address: '127.0.0.6' }));
  t.match(end, /^(nothing thrown|already-member)$/, 'it goes on where it stopped, or had come through');
  t.equal((await loadIdentity(stateDir, Date.now())).name, 'db1/db');
  t.equal(at.identity.roster.members().length, 2);
});
