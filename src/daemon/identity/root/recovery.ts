import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  type KeyObject,
  randomBytes,
  scrypt,
  type ScryptOptions,
} from 'node:crypto';
import * as z from 'zod';
import { keyPem } from '../keys/certificates.ts';
import { trustOf } from '../keys/chain.ts';
import { IdentityError } from '../errors.ts';

/**
 * The root's private key is stored nowhere unencrypted. `init` hands it out once, encrypted, and keeps the same bundle
 * beside the authority's own key: a stolen disk gives no root without the passphrase, and a further authority needs
 * only the passphrase.
 */

/** The opened root of the cluster: in memory only during the call that needs it. */
export interface Root {
  readonly cluster: string;
  readonly certificatePem: string;
  readonly key: KeyObject;
}

/** 64 MiB and about 0.3 s: a machine of 512 MiB can still do it (RFC 7914; OWASP asks for at least 2^15 with r = 8). */
const SCRYPT = { N: 1 << 16, r: 8, p: 1 } as const;
const SCRYPT_MAX_N = 1 << 17;
const BUNDLE_BYTES = 16_384;
const PASSPHRASE_CHARACTERS = 12;
const BEGIN = '-----BEGIN BORNEMISZA RECOVERY BUNDLE-----';
const END = '-----END BORNEMISZA RECOVERY BUNDLE-----';

const Bundle = z.object({
  version: z.literal(1),
  cluster: z.string().max(32),
  root: z.string().max(8192),
  scrypt: z.object({ N: z.int().min(1024).max(SCRYPT_MAX_N), r: z.literal(8), p: z.literal(1) }),
  salt: z.base64().length(24),
  iv: z.base64().length(16),
  tag: z.base64().length(24),
  key: z.base64().max(8192),
});
type Bundle = z.infer<typeof Bundle>;

/** 150 random bits in six groups that can be written down, without letters that look alike. */
export function createPassphrase(): string {
  const letters = 'abcdefghijkmnpqrstuvwxyz23456789';
  const characters = [...randomBytes(30)].map((byte) => letters.charAt(byte & 31)).join('');
  return characters.match(/.{5}/g)?.join('-') ?? characters;
}

/** @throws IdentityError `passphrase-short` */
export function mustBeLong(passphrase: string): void {
  if (passphrase.length < PASSPHRASE_CHARACTERS) {
    throw new IdentityError({
      code: 'passphrase-short',
      message: `The passphrase has ${passphrase.length} characters; at least ${PASSPHRASE_CHARACTERS} are needed.`,
      next: 'Pass a longer one, or none: then a strong one is made.',
    });
  }
}

/** @returns text for safekeeping. @throws IdentityError `passphrase-short` */
export async function sealRoot(root: Root, passphrase: string): Promise<string> {
  mustBeLong(passphrase);
  const head = { version: 1, cluster: root.cluster, root: root.certificatePem, scrypt: SCRYPT } as const;
  const salt = randomBytes(16);
  const iv = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', await stretched(passphrase, salt, SCRYPT), iv);
  cipher.setAAD(associated(head));
  const key = Buffer.concat([cipher.update(keyPem(root.key), 'utf8'), cipher.final()]);
  const parts = { salt, iv, tag: cipher.getAuthTag(), key };
  const encoded = Object.entries(parts).map(([name, bytes]) => [name, bytes.toString('base64')]);
  const body = Buffer.from(JSON.stringify({ ...head, ...Object.fromEntries(encoded) })).toString('base64');
  return `${BEGIN}\n${body.match(/.{1,76}/g)?.join('\n') ?? ''}\n${END}\n`;
}

/** @throws IdentityError `recovery-malformed`, `recovery-passphrase-wrong` */
export async function openRoot(text: string, passphrase: string): Promise<Root> {
  const bundle = decode(text);
  const options = { ...bundle.scrypt };
  const derived = await stretched(passphrase, Buffer.from(bundle.salt, 'base64'), options);
  let pem: string;
  try {
    const cipher = createDecipheriv('aes-256-gcm', derived, Buffer.from(bundle.iv, 'base64'));
    cipher.setAAD(associated(bundle));
    cipher.setAuthTag(Buffer.from(bundle.tag, 'base64'));
    pem = Buffer.concat([cipher.update(Buffer.from(bundle.key, 'base64')), cipher.final()]).toString('utf8');
  } catch {
    throw new IdentityError({
      code: 'recovery-passphrase-wrong',
      message: 'The passphrase does not open the recovery bundle.',
      next: 'Type the passphrase that "bornemisza init" showed, with its hyphens.',
    });
  }
  return opened(bundle, pem);
}

/** A bundle that decrypts was written by us; whether certificate and key belong together is checked nevertheless. */
function opened(bundle: Bundle, pem: string): Root {
  try {
    const key = createPrivateKey(pem);
    const root = trustOf(bundle.cluster, bundle.root).roots[0];
    if (root?.x509.checkPrivateKey(key) === true) {
      return { cluster: bundle.cluster, certificatePem: root.pem, key };
    }
  } catch {
    // One message for all causes, as a cause could quote the key.
  }
  throw malformed();
}

function decode(text: string): Bundle {
  const body = text.slice(0, BUNDLE_BYTES).trim();
  if (text.length > BUNDLE_BYTES || !body.startsWith(BEGIN) || !body.endsWith(END)) throw malformed();
  try {
    const json = Buffer.from(body.slice(BEGIN.length, -END.length), 'base64').toString('utf8');
    return Bundle.parse(JSON.parse(json));
  } catch {
    throw malformed();
  }
}

function malformed(): IdentityError {
  return new IdentityError({
    code: 'recovery-malformed',
    message: 'This is not a complete recovery bundle.',
    next: 'Paste it from the line that begins with -----BEGIN to the line that begins with -----END.',
  });
}

/** Certificate and parameters are not secret but must not be exchanged either. */
function associated(head: Pick<Bundle, 'version' | 'cluster' | 'root' | 'scrypt'>): Buffer {
  const { N, r, p } = head.scrypt;
  return Buffer.from(JSON.stringify([head.version, head.cluster, head.root, N, r, p]));
}

function stretched(passphrase: string, salt: Buffer, options: ScryptOptions): Promise<Buffer> {
  const text = passphrase.trim().normalize('NFKC');
  const maxmem = 160 * 1024 * 1024;
  return new Promise((resolve, reject) => {
    scrypt(text, salt, 32, { ...options, maxmem }, (error, key) =>
      error === null ? resolve(key) : reject(error),
    );
  });
}
