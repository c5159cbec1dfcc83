import { readFile } from 'node:fs/promises';
import t from 'tap';
import { verifyByPeerId } from '../../../src/daemon/identity/keys/node-key.ts';
import { decodeMessage, encodeMessage } from '../../../src/daemon/wire/message.ts';
import { verifyAccusation, verifyRecord } from '../../../src/daemon/wire/record.ts';
import { messages } from './samples.ts';

/**
 * What version 1 puts on the wire, kept for good: `name hex`, one message a line. A later version must read every line
 * as this one does; it may write otherwise, and then adds a file of its own.
 */
const VECTORS = new URL('../../vectors/membership-1.txt', import.meta.url);

async function vectors(): Promise<Map<string, Uint8Array>> {
  const text = await readFile(VECTORS, 'utf8');
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines
      .map((line) => line.split(' ') as [string, string])
      .map(([name, hex]) => [name, Buffer.from(hex, 'hex')]),
  );
}

t.test('every kept message of version 1 is read as it was meant, signatures included', async (t) => {
  const kept = await vectors();
  const verify = verifyByPeerId();
  t.equal(kept.size, messages().length);
  for (const [index, message] of messages().entries()) {
    const name = `${index}-${message.kind}`;
    const decoded = decodeMessage(kept.get(name) ?? new Uint8Array(0));
    if (!decoded.ok) throw new Error(`${name}: ${decoded.reason}`);
    t.strictSame(decoded.value.message, message, name);
    if (decoded.value.message.kind !== 'batch') continue;
    for (const record of decoded.value.message.records) t.ok(verifyRecord(record, verify));
    for (const accusation of decoded.value.message.accusations) t.ok(verifyAccusation(accusation, verify));
  }
});

t.test('this version writes exactly the kept bytes', async (t) => {
  const kept = await vectors();
  for (const [index, message] of messages().entries()) {
    const [frame] = encodeMessage(message);
    t.same(Buffer.from(frame ?? []), Buffer.from(kept.get(`${index}-${message.kind}`) ?? []), message.kind);
  }
});
