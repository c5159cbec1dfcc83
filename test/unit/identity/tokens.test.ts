import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createNodeKey } from '../../../src/daemon/identity/keys/node-key.ts';
import { REPEAT_MS, TokenStore } from '../../../src/daemon/identity/admission/token-store.ts';
import {
  createToken,
  formatToken,
  parseToken,
  proofOf,
} from '../../../src/daemon/identity/admission/tokens.ts';
import { codeOf, NOW_MS } from './cluster.ts';

const HOUR_MS = 3_600_000;
const issuer = {
  peerId: createNodeKey().peerId,
  cluster: 'prod',
  rootFingerprint: randomBytes(32).toString('hex'),
};
const request = { role: 'db', ttlMs: HOUR_MS, address: '10.0.0.1', port: 4104, nowMs: NOW_MS } as const;
const exporter = randomBytes(32);

async function store(t: Test): Promise<{ tokens: TokenStore; directory: string }> {
  const directory = join(t.testdir(), 'tokens');
  await mkdir(directory, { mode: 0o700 });
  return { tokens: new TokenStore(directory, issuer), directory };
}
const claim = (peerId: string) => ({
  usedAtMs: NOW_MS,
  peerId,
  request: '0'.repeat(64),
  chainPem: '',
  firstOfRole: false,
});

t.test('a token holds all that a joiner must know', async (t) => {
  const { tokens } = await store(t);
  const { token, expiresAtMs, id } = await tokens.create(request);
  t.equal(expiresAtMs, NOW_MS + HOUR_MS);
  t.match(parseToken(token), {
    cluster: 'prod',
    issuer: { address: '10.0.0.1', port: 4104, peerId: issuer.peerId },
    rootFingerprint: issuer.rootFingerprint,
    role: 'db',
    expiresAtMs,
    id,
  });
  t.ok(parseToken(token).secret.length * 8 >= 128);
  t.match(token, /^bm1\.[\w-]+\.[\w-]+$/, 'one word for any shell');
});

t.test('a token survives the line breaks of a terminal', async (t) => {
  const token = formatToken(
    createToken({ ...parseToken((await (await store(t)).tokens.create(request)).token) }),
  );
  const wrapped = `\n  ${token.match(/.{1,40}/g)?.join('\n') ?? ''} \n`;
  t.strictSame(parseToken(wrapped), parseToken(token));
});

t.test('a token without its end, or without any one character, is recognised', async (t) => {
  const { token } = await (await store(t)).tokens.create(request);
  for (let length = 4; length < token.length; length += 1) {
    t.equal(await codeOf(() => parseToken(token.slice(0, length))), 'token-truncated', `cut to ${length}`);
  }
  for (let at = 4; at < token.length; at += 7) {
    const changed = token.slice(0, at) + (token[at] === 'A' ? 'B' : 'A') + token.slice(at + 1);
    t.equal(await codeOf(() => parseToken(changed)), 'token-truncated', `changed at ${at}`);
  }
});

t.test('a text that is no token gets another error than a token of another version', async (t) => {
  for (const bad of ['', 'hello', 'bm', 'BM1.x.y', 'bm1.a.b.c', 'x'.repeat(1_000_000), '{"a":1}']) {
    t.equal(await codeOf(() => parseToken(bad)), 'token-not-a-token', bad.slice(0, 20));
  }
  t.equal(await codeOf(() => parseToken('bm2.abc.def')), 'token-version');
});

t.test('the issuer keeps nothing that would be enough to join', async (t) => {
  const { tokens, directory } = await store(t);
  const { token } = await tokens.create(request);
  const { secret, id } = parseToken(token);
  const files = await readdir(directory);
  t.strictSame(files, [`${id}.issued.json`]);
  const text = await readFile(join(directory, files[0] ?? ''), 'utf8');
  for (const form of ['hex', 'base64', 'base64url'] as const) t.notMatch(text, secret.toString(form));
  const { storedKey } = JSON.parse(text) as { storedKey: string };
  const forged = Buffer.from(storedKey, 'hex');
  t.equal(await tokens.prove(id, forged, exporter, NOW_MS), undefined, 'the stored hash is no proof');
});

t.test('the secret proves itself on its own channel only', async (t) => {
  const { tokens } = await store(t);
  const token = parseToken((await tokens.create(request)).token);
  const proof = proofOf(token, exporter);
  t.match(await tokens.prove(token.id, proof, exporter, NOW_MS), {
    id: token.id,
    role: 'db',
    expired: false,
  });
  t.match(await tokens.prove(token.id, proof, exporter, NOW_MS + 2 * HOUR_MS), { expired: true });
  t.equal(await tokens.prove(token.id, proof, randomBytes(32), NOW_MS), undefined, 'another channel');
  t.equal(await tokens.prove(token.id, randomBytes(32), exporter, NOW_MS), undefined, 'a guess');
  t.equal(await tokens.prove('0'.repeat(16), proof, exporter, NOW_MS), undefined, 'an unknown token');
  t.equal(await tokens.prove('../../etc/passwd', proof, exporter, NOW_MS), undefined, 'a path');
});

t.test('of many claims at once exactly one wins, also between two processes', async (t) => {
  const { tokens, directory } = await store(t);
  const { id } = await tokens.create(request);
  const other = new TokenStore(directory, issuer);
  const claims = Array.from({ length: 20 }, (_, index) =>
    (index % 2 === 0 ? tokens : other).claim(id, claim(`peer${index}`)),
  );
  const won = (await Promise.all(claims)).flatMap((wins, index) => (wins ? [`peer${index}`] : []));
  t.equal(won.length, 1);
  t.match(await tokens.claimOf(id), { peerId: won[0] });
  t.strictSame(
    (await readdir(directory)).filter((name) => name.endsWith('.tmp')),
    [],
  );
});

t.test('a token is unused, used or expired', async (t) => {
  const { tokens } = await store(t);
  const used = await tokens.create(request);
  const unused = await tokens.create({ ...request, role: 'app' });
  await tokens.claim(used.id, claim('somebody'));
  const states = Object.fromEntries((await tokens.list(NOW_MS)).map(({ id, state }) => [id, state]));
  t.strictSame(states, { [used.id]: 'used', [unused.id]: 'unused' });
  const later = (await tokens.list(NOW_MS + 2 * HOUR_MS)).find(({ id }) => id === unused.id);
  t.equal(later?.state, 'expired');
});

t.test('the door is open while a token lives, and a little longer for an answer that was lost', async (t) => {
  const { tokens } = await store(t);
  t.equal(await tokens.openUntilMs(NOW_MS), undefined);
  const { id, expiresAtMs } = await tokens.create(request);
  t.equal(await tokens.openUntilMs(NOW_MS), expiresAtMs);
  t.equal(await tokens.openUntilMs(expiresAtMs), undefined);
  await tokens.claim(id, claim('somebody'));
  t.equal(await tokens.openUntilMs(NOW_MS), NOW_MS + REPEAT_MS);
  t.equal(await tokens.openUntilMs(NOW_MS + REPEAT_MS), undefined);
});

t.test('of a join and a revocation at once exactly one happens, also between two processes', async (t) => {
  const { tokens, directory } = await store(t);
  for (let round = 0; round < 20; round += 1) {
    const { id } = await tokens.create(request);
    const [joined, revoked] = await Promise.all([
      tokens.claim(id, claim('somebody')),
      new TokenStore(directory, issuer).revoke(id, NOW_MS).then(
        () => true,
        (error: unknown) => (error as { code?: string }).code !== 'token-not-open',
      ),
    ]);
    t.not(joined, revoked, 'one of the two');
    t.equal((await tokens.list(NOW_MS)).find((each) => each.id === id)?.state, joined ? 'used' : 'revoked');
  }
});

t.test('only an open token can be revoked, and a revoked one opens no door', async (t) => {
  const { tokens, directory } = await store(t);
  const [used, open] = [await tokens.create(request), await tokens.create(request)];
  await tokens.claim(used.id, claim('somebody'));
  t.equal(await codeOf(() => tokens.revoke(used.id, NOW_MS)), 'token-not-open');
  t.equal(await codeOf(() => tokens.revoke(open.id, NOW_MS + 2 * HOUR_MS)), 'token-not-open', 'it has ended');
  for (const id of ['0'.repeat(16), '', '../x', `${open.id}.issued.json`])
    t.equal(await codeOf(() => tokens.revoke(id, NOW_MS)), 'token-unknown', id);
  await tokens.revoke(open.id, NOW_MS);
  t.equal(await codeOf(() => tokens.revoke(open.id, NOW_MS)), 'token-not-open', 'once');
  t.equal(await tokens.openUntilMs(NOW_MS), NOW_MS + REPEAT_MS, 'for the used one alone');
  t.equal(await tokens.claim(open.id, claim('late')), false);
  await tokens.create({ ...request, nowMs: NOW_MS + 26 * HOUR_MS });
  t.equal((await readdir(directory)).length, 1, 'forgotten a day after its end like any other');
});

t.test('many tokens are made, all or none, and never more than may be open at once', async (t) => {
  const { tokens, directory } = await store(t);
  const made = await tokens.createMany(request, 60);
  t.equal(new Set(made.map(({ token }) => parseToken(token).id)).size, 60);
  t.equal(await codeOf(() => tokens.createMany(request, 5)), 'token-too-many');
  t.equal((await tokens.list(NOW_MS)).length, 60, 'none of the five');
  const both = await Promise.allSettled([tokens.createMany(request, 4), tokens.createMany(request, 4)]);
  t.same(
    both.map(({ status }) => status).sort(),
    ['fulfilled', 'rejected'],
    'two at once do not share the room',
  );
  for (const { id } of made) await tokens.revoke(id, NOW_MS);
  t.equal((await tokens.createMany(request, 60)).length, 60, 'a revoked one takes no room');
  t.ok(directory);
});

t.test('tokens are bounded in number and in life, and forgotten a day after their end', async (t) => {
  const { tokens, directory } = await store(t);
  for (const ttlMs of [0, 59_999, 24 * HOUR_MS + 1, Number.NaN]) {
    t.equal(await codeOf(() => tokens.create({ ...request, ttlMs })), 'token-ttl');
  }
  for (let count = 0; count < 64; count += 1) await tokens.create(request);
  t.equal(await codeOf(() => tokens.create(request)), 'token-too-many');
  await tokens.create({ ...request, nowMs: NOW_MS + 2 * HOUR_MS });
  t.equal((await readdir(directory)).length, 65);
  await tokens.create({ ...request, nowMs: NOW_MS + 26 * HOUR_MS });
  t.equal((await readdir(directory)).length, 2);
});

t.test('a damaged token file is a token that does not work; a damaged claim is not overlooked', async (t) => {
  const { tokens, directory } = await store(t);
  const { id } = await tokens.create(request);
  await writeFile(join(directory, `${id}.used.json`), '{"versi', { mode: 0o600 });
  t.equal(await codeOf(() => tokens.claimOf(id)), 'state-file-damaged');
  t.equal(await tokens.claim(id, claim('second')), false, 'and the token stays used');
  await writeFile(join(directory, `${id}.issued.json`), '{"versi', { mode: 0o600 });
  t.strictSame(await tokens.list(NOW_MS), []);
});
