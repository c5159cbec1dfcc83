import t from 'tap';
import {
  createNodeKey,
  inDomain,
  nodeKeyFromPem,
  peerIdOf,
  publicKeyOf,
  verify,
} from '../../../src/daemon/identity/keys/node-key.ts';
import { codeOf } from './cluster.ts';

const key = createNodeKey();
const payload = Buffer.from('what was said');

t.test('a PeerId and its public key lead to each other', async (t) => {
  t.match(key.peerId, /^12D3KooW/);
  t.strictSame(Buffer.from(publicKeyOf(key.peerId)), Buffer.from(key.publicKey));
  t.equal(peerIdOf(key.publicKey), key.peerId);
  t.equal(key.libp2p.publicKey.toString().length > 0, true);
  t.strictSame(
    Buffer.from(key.libp2p.publicKey.raw),
    Buffer.from(key.publicKey),
    'libp2p holds the same key',
  );
});

t.test('a key comes back whole from its file', async (t) => {
  const again = nodeKeyFromPem(key.pem);
  t.equal(again.peerId, key.peerId);
  t.strictSame(
    again.sign('record', payload),
    key.sign('record', payload),
    'the same signature for the same input',
  );
});

t.test('a signature holds for its signer, purpose and payload, and for nothing else', async (t) => {
  const signature = key.sign('record', payload);
  t.equal(signature.length, 64);
  t.ok(verify(key.peerId, 'record', payload, signature));
  t.notOk(verify(createNodeKey().peerId, 'record', payload, signature), 'another signer');
  t.notOk(verify(key.peerId, 'accusation', payload, signature), 'another purpose');
  t.notOk(verify(key.peerId, 'record', Buffer.from('what was zaid'), signature), 'another payload');
  t.notOk(verify(key.peerId, 'record', payload, signature.subarray(1)), 'a cut signature');
  t.notOk(verify('nobody', 'record', payload, signature), 'no PeerId');
  t.notOk(verify(key.peerId, 'no such Domain!', payload, signature), 'no purpose');
});

t.test('libp2p and node:crypto agree on signatures', async (t) => {
  const signature = await key.libp2p.sign(inDomain('record', payload));
  t.ok(verify(key.peerId, 'record', payload, signature));
});

t.test('what is no PeerId of an Ed25519 key is refused', async (t) => {
  const rsa = 'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N';
  for (const bad of ['', 'x', rsa, `${key.peerId} `, key.peerId.slice(0, -1), '1'.repeat(100_000)]) {
    t.equal(await codeOf(() => publicKeyOf(bad)), 'peer-id-malformed', bad.slice(0, 60));
  }
  t.equal(await codeOf(() => peerIdOf(new Uint8Array(31))), 'peer-id-malformed');
});

t.test('a damaged key file is refused without being quoted', async (t) => {
  for (const bad of ['', key.pem.slice(0, 60), 'secret text']) {
    t.equal(await codeOf(() => nodeKeyFromPem(bad)), 'node-key-malformed');
  }
});
