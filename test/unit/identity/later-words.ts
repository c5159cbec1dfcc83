import { sign } from 'node:crypto';
import { inDomain } from '../../../src/daemon/identity/keys/node-key.ts';
import type { Root } from '../../../src/daemon/identity/root/recovery.ts';
import type { SignedSuccession } from '../../../src/daemon/identity/root/succession.ts';

/** Signs words or bytes as they are, as a later version might write them. */
export function signAs(words: object, from: Root, to: Root): SignedSuccession {
  const payload = Buffer.isBuffer(words) ? words : Buffer.from(JSON.stringify(words));
  const by = ({ key }: Root) => sign('sha256', inDomain('root-succession', payload), key);
  return { payload, byOld: by(from), byNew: by(to), ending: Buffer.alloc(0) };
}
