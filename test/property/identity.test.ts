import { createHash } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as fc from 'fast-check';
import t from 'tap';
import { buildRoot, createTlsKey } from '../../src/daemon/identity/keys/certificates.ts';
import { trustOf, verifyChain } from '../../src/daemon/identity/keys/chain.ts';
import { IdentityError } from '../../src/daemon/identity/errors.ts';
import { inNetwork, parseAddress, parseCluster, parseHost } from '../../src/daemon/identity/names.ts';
import {
  createNodeKey,
  nodeKeyFromPem,
  peerIdOf,
  publicKeyOf,
  verify,
} from '../../src/daemon/identity/keys/node-key.ts';
import { openRoot, type Root } from '../../src/daemon/identity/root/recovery.ts';
import { verifyRevocation } from '../../src/daemon/identity/roster/revocation.ts';
import { Roster } from '../../src/daemon/identity/roster/roster.ts';
import { decodeRoster, encodeRoster } from '../../src/daemon/identity/roster/roster-encoding.ts';
import { createSecrets, decodeSecrets, encodeSecrets } from '../../src/daemon/identity/secrets.ts';
import {
  RootLine,
  type SignedSuccession,
  signEnding,
  signSuccession,
  verifySuccession,
} from '../../src/daemon/identity/root/succession.ts';
import {
  createSigningRequest,
  verifySigningRequest,
} from '../../src/daemon/identity/keys/signing-request.ts';
import { createToken, formatToken, parseToken } from '../../src/daemon/identity/admission/tokens.ts';
import {
  decodeAnswer,
  decodeHello,
  decodeLength,
  decodeRequest,
  encodeAnswer,
  encodeRequest,
} from '../../src/daemon/identity/admission/frames.ts';
import { codeOf, NOW_MS, testCluster } from '../unit/identity/cluster.ts';
import { signAs } from '../unit/identity/later-words.ts';

/**
 * No input gets past a decoder as anything but its type or the coded error. Inputs are of three kinds: bytes of any
 * sort, JSON of any shape, and valid encodings that were cut, flipped or repeated somewhere.
 */

const RUNS = { numRuns: 300 };
const founder = createNodeKey();
const prod = await testCluster('prod', founder.peerId);
const member = await prod.node('db1', 'db', { nodeKey: founder });
const gone = await prod.node('db2');
const revocation = await prod.authority.revoke({ ...gone, serials: [gone.serialHex] }, 'test', NOW_MS);
const roster = new Roster(prod.trust, '/nowhere');
roster.add(member);
roster.addRevocation(revocation);
const [second, third] = await Promise.all(['2222', '3333'].map(anotherRoot));
if (second === undefined || third === undefined) throw new Error('two roots');
const follows = await signSuccession(prod.root, second, { sequence: 1, madeAtMs: NOW_MS });
const ends = await signEnding(follows, second);
const changedRoster = encodeRoster({
  ...{ cluster: 'prod', successions: [ends], certificates: [], revocations: [] },
  authorities: [],
});
const secrets = await createSecrets();
const csr = createSigningRequest(prod.tlsKey, 'db1', 'db');
const token = formatToken(
  createToken({
    cluster: 'prod',
    issuer: { address: '10.0.0.1', port: 4104, peerId: founder.peerId },
    rootFingerprint: createHash('sha256').digest('hex'),
    role: 'db',
    expiresAtMs: NOW_MS,
  }),
);
const request = encodeRequest({
  csr,
  host: 'db1',
  role: 'db',
  address: '10.0.0.9',
  version: '0.1.0',
  publicKey: founder.publicKey,
  signature: new Uint8Array(64),
}).subarray(4);
const answer = encodeAnswer({
  admitted: true,
  cluster: 'prod',
  chain: member.chainPem,
  roots: prod.root.certificatePem,
  roster: roster.exportAll(),
  firstOfRole: true,
  seeds: [],
}).subarray(4);

async function anotherRoot(mark: string): Promise<Root> {
  const key = await createTlsKey();
  return { cluster: 'prod', key, certificatePem: await buildRoot('prod', mark, key, NOW_MS) };
}
/** A trust of its own each time: a change of the root changes it. */
const oldTrust = () => trustOf('prod', prod.root.certificatePem);

/** One small wound somewhere in a valid encoding. */
function wounded(valid: Uint8Array): fc.Arbitrary<Buffer> {
  const at = fc.nat({ max: valid.length - 1 });
  const whole = Buffer.from(valid);
  return fc.oneof(
    at.map((end) => whole.subarray(0, end)),
    fc.tuple(at, fc.integer({ min: 1, max: 255 })).map(([index, mask]) => {
      const copy = Buffer.from(whole);
      copy.writeUInt8(copy.readUInt8(index) ^ mask, index);
      return copy;
    }),
    fc
      .tuple(at, fc.uint8Array({ maxLength: 64 }))
      .map(([index, more]) => Buffer.concat([whole.subarray(0, index), more, whole.subarray(index)])),
    at.map((start) => Buffer.concat([whole, whole.subarray(start)])),
  );
}

function inputs(valid: Uint8Array): fc.Arbitrary<Buffer> {
  return fc.oneof(
    fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes)),
    fc.json({ maxDepth: 6 }).map((text) => Buffer.from(text)),
    fc.integer({ min: 1, max: 60_000 }).map((depth) => Buffer.from('[{"a":'.repeat(depth / 6))),
    wounded(valid),
  );
}

/** Runs `decode`; a coded error is an answer, anything else that is thrown is a failure. */
async function holds(decode: () => unknown): Promise<'taken' | 'refused'> {
  try {
    await decode();
    return 'taken';
  } catch (error) {
    if (error instanceof IdentityError && /^[a-z-]+$/.test(error.code) && error.message.length < 2000)
      return 'refused';
    throw error;
  }
}

const decoders: Record<string, { valid: Uint8Array; decode: (bytes: Buffer) => unknown }> = {
  token: { valid: Buffer.from(token), decode: (bytes) => parseToken(bytes.toString('latin1')) },
  revocation: { valid: revocation, decode: (bytes) => verifyRevocation(bytes, prod.trust) },
  roster: { valid: roster.exportAll(), decode: decodeRoster },
  'roster merge': {
    valid: roster.exportAll(),
    decode: (bytes) => new Roster(prod.trust, '/nowhere').merge(bytes),
  },
  // Whoever holds the roots' keys may sign any bytes.
  'succession, well signed': {
    valid: follows.payload,
    decode: (bytes) => verifySuccession(signAs(bytes, prod.root, second), 'prod'),
  },
  'roster merge with another root': {
    valid: changedRoster,
    decode: (bytes) => new Roster(oldTrust(), '/nowhere').merge(bytes),
  },
  chain: {
    valid: Buffer.from(member.chainPem),
    decode: (bytes) => verifyChain(bytes.toString('latin1'), prod.trust, NOW_MS),
  },
  'signing request': {
    valid: Buffer.from(csr),
    decode: (bytes) => verifySigningRequest(bytes.toString('latin1')),
  },
  'node key': {
    valid: Buffer.from(founder.pem),
    decode: (bytes) => nodeKeyFromPem(bytes.toString('latin1')),
  },
  secrets: { valid: encodeSecrets(secrets), decode: decodeSecrets },
  'admission hello': { valid: Buffer.alloc(41, 1), decode: decodeHello },
  'admission request': { valid: request, decode: decodeRequest },
  'admission answer': { valid: answer, decode: decodeAnswer },
};

for (const [name, { valid, decode }] of Object.entries(decoders)) {
  t.test(`no input throws past the decoder of a ${name}`, async (t) => {
    t.equal(await holds(() => decode(Buffer.from(valid))), 'taken', 'what is valid is taken');
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(inputs(valid), async (bytes) => {
        if ((await holds(() => decode(bytes))) === 'refused') refused += 1;
      }),
      RUNS,
    );
    t.ok(refused > RUNS.numRuns / 4, `${refused} of ${RUNS.numRuns} inputs were refused`);
  });
}

t.test('no wound turns a signed thing into another one', async (t) => {
  fc.assert(
    fc.property(wounded(revocation), (bytes) => {
      try {
        return verifyRevocation(bytes, prod.trust).peerId === gone.peerId;
      } catch {
        return true;
      }
    }),
    RUNS,
  );
  fc.assert(
    fc.property(wounded(Buffer.from(member.chainPem)), (bytes) => {
      try {
        return verifyChain(bytes.toString('latin1'), prod.trust, NOW_MS).serialHex === member.serialHex;
      } catch {
        return true;
      }
    }),
    RUNS,
  );
  t.pass('all read as what was signed, or not at all');
});

t.test(
  'whatever is merged, a roster holds certificates of its own cluster only, and the revoked stay out',
  async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.array(inputs(roster.exportAll()), { maxLength: 4 }), async (parts) => {
        const held = new Roster(prod.trust, '/nowhere');
        held.addRevocation(revocation);
        for (const part of parts) await held.merge(part).catch(() => undefined);
        return held.members().every(({ peerId }) => peerId === member.peerId) && held.isRevoked(gone.peerId);
      }),
      { numRuns: 60 },
    );
    t.pass('no input got anybody else in');
  },
);

t.test('rosters that take the same items in any order, in any portions, are equal', async (t) => {
  const nodes = await Promise.all(['a', 'b', 'c', 'd', 'e', 'f'].map((host) => prod.node(host)));
  const revocations = await Promise.all(
    nodes.slice(0, 2).map((node) => prod.authority.revoke({ ...node, serials: [] }, '', NOW_MS)),
  );
  const additions = [
    ...nodes.map((node) => (into: Roster) => into.add(node)),
    ...revocations.map((bytes) => (into: Roster) => into.addRevocation(bytes)),
  ];
  const order = fc.shuffledSubarray(additions, { minLength: additions.length });
  const fill = (steps: typeof additions) => {
    const filled = new Roster(prod.trust, '/nowhere');
    for (const step of steps) {
      try {
        step(filled);
      } catch (error) {
        if (!(error instanceof IdentityError) || error.code !== 'peer-revoked') throw error;
      }
    }
    return filled;
  };
  await fc.assert(
    fc.asyncProperty(order, order, fc.nat({ max: additions.length }), async (one, other, portion) => {
      const [left, right] = [fill(one), fill(other.slice(0, portion))];
      await right.merge(left.exportMissing(right.ids()));
      await left.merge(right.exportMissing(left.ids()));
      return left.digest() === right.digest();
    }),
    { numRuns: 40 },
  );
  t.pass('they converged');
});

t.test('no wound makes a roster believe in a root that none of its own has named', async (t) => {
  const [before, between, after] = [[prod.root], [prod.root, second], [second]].map((roots) =>
    roots.map(({ certificatePem }) => certificatePem).join(''),
  );
  await fc.assert(
    fc.asyncProperty(inputs(changedRoster), async (bytes) => {
      const trust = oldTrust();
      await new Roster(trust, '/nowhere').merge(bytes).catch(() => undefined);
      return [before, between, after].includes(trust.roots.map(({ pem }) => pem).join(''));
    }),
    RUNS,
  );
  t.pass('the old one, both, or the new one');
});

t.test('the same changes of the root, in any order and portions, lead to the same trust', async (t) => {
  const words = await Promise.all([
    ...[follows, ends].map(async (each) => each),
    signSuccession(second, third, { sequence: 1, madeAtMs: NOW_MS + 1 }),
    signSuccession(prod.root, third, { sequence: 1, madeAtMs: NOW_MS }),
    signSuccession(prod.root, third, { sequence: 2, madeAtMs: NOW_MS }),
  ]);
  const believed = (portions: readonly (readonly SignedSuccession[])[]): string => {
    const trust = oldTrust();
    const line = new RootLine(trust);
    for (const portion of portions) line.take(portion.map((each) => verifySuccession(each, 'prod')));
    return trust.roots.map(({ fingerprint }) => fingerprint).join();
  };
  const order = fc.shuffledSubarray(words, { minLength: words.length });
  const expected = believed([words]);
  t.equal(expected.split(',').length, 2, 'the second ended the first, and the third follows it');
  fc.assert(
    fc.property(order, fc.nat({ max: words.length }), (all, at) => {
      // What was refused before it could be understood is told again at the next exchange.
      return believed([all.slice(0, at), all.slice(at), all]) === expected;
    }),
    { numRuns: 60 },
  );
});

t.test('a token reads as it was written', async (t) => {
  const facts = fc.record({
    cluster: fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/),
    issuer: fc.record({
      address: fc
        .tuple(fc.integer({ min: 1, max: 223 }), fc.nat(255), fc.nat(255), fc.nat(255))
        .map((parts) => parts.join('.')),
      port: fc.integer({ min: 1, max: 65_535 }),
      peerId: fc.uint8Array({ minLength: 32, maxLength: 32 }).map(peerIdOf),
    }),
    rootFingerprint: fc
      .uint8Array({ minLength: 32, maxLength: 32 })
      .map((bytes) => Buffer.from(bytes).toString('hex')),
    role: fc.constantFrom('app' as const, 'db' as const),
    expiresAtMs: fc.nat({ max: 2 ** 48 - 1 }),
  });
  fc.assert(
    fc.property(facts, (wanted) => {
      const made = createToken(wanted);
      // fast-check makes objects without a prototype, so what is compared is what they say.
      t.strictSame(parseToken(formatToken(made)), { ...made, issuer: { ...made.issuer } });
    }),
    { numRuns: 100 },
  );
});

t.test('names, addresses and keys take any text', async (t) => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.ipV4(),
    fc.domain(),
    fc.base64String(),
  );
  await fc.assert(
    fc.asyncProperty(text, text, async (one, other) => {
      for (const parse of [parseHost, parseCluster, parseAddress, publicKeyOf]) await holds(() => parse(one));
      inNetwork(one, other);
      return !verify(one, 'record', Buffer.from(other), new Uint8Array(64));
    }),
    RUNS,
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 80 }), (any) => {
      try {
        return /^[a-z0-9-]+$/.test(parseHost(any));
      } catch {
        return true;
      }
    }),
    RUNS,
  );
  t.pass('and what they let through is harmless');
});

t.test('a length is one within its limit, or refused', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 6 }),
      fc.integer({ min: 1, max: 1e6 }),
      async (bytes, limit) => {
        let length = 1;
        await holds(() => {
          length = decodeLength(Buffer.from(bytes), limit);
        });
        return length >= 1 && length <= limit;
      },
    ),
    RUNS,
  );
  t.pass('never more than the limit is waited for');
});

t.test('a recovery bundle of any text is refused before any work is done', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      inputs(
        Buffer.from(
          '-----BEGIN BORNEMISZA RECOVERY BUNDLE-----\ne30=\n-----END BORNEMISZA RECOVERY BUNDLE-----\n',
        ),
      ),
      // What was worked on first is refused for its passphrase.
      async (bytes) =>
        (await codeOf(() => openRoot(bytes.toString('latin1'), 'a passphrase'))) === 'recovery-malformed',
    ),
    RUNS,
  );
  t.pass('none of them was stretched');
});

t.test('decoding hostile input for long leaves no memory behind', async (t) => {
  const feed = () => {
    for (let count = 0; count < 300; count += 1) {
      for (const { decode } of [
        decoders['token'],
        decoders['admission request'],
        decoders['revocation'],
        decoders['chain'],
      ].filter((entry) => entry !== undefined)) {
        try {
          decode(Buffer.alloc(60_000, `[${count}`));
        } catch (error) {
          if (!(error instanceof IdentityError)) throw error;
        }
      }
    }
  };
  feed();
  const before = heapAfterCollection();
  feed();
  t.ok(heapAfterCollection() - before < 8 * 1024 * 1024);
});

/** The collector is asked for by its own name: without it the figure would hang on when V8 felt like it. */
function heapAfterCollection(): number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  collect();
  return process.memoryUsage().heapUsed;
}
