import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import forge from 'node-forge';

/** `good`: the cluster's CA and the node's address as a DNS name; the rest as named. */
export type CertificateKind = 'good' | 'other-ca' | 'ip-san' | 'wrong-name';

type Authority = { key: forge.pki.rsa.PrivateKey; certificate: forge.pki.Certificate };
type Pair = { publicKey: forge.pki.rsa.PublicKey; privateKey: forge.pki.rsa.PrivateKey };

/** Certificates for the distribution port, in the files that `-ssl_dist_optfile` names. */
export class DistCertificates {
  readonly #authorities = new Map<string, Authority>();
  readonly #pairs = new Map<string, Pair>();

  /** @returns the path of couch_dist.conf */
  async write(dir: string, kind: CertificateKind, address: string): Promise<string> {
    const authority = this.#authority(kind === 'other-ca' ? 'other' : 'cluster');
    const pair = this.#pair(address);
    const altNames = {
      good: [{ type: 2, value: address }],
      'other-ca': [{ type: 2, value: address }],
      'ip-san': [{ type: 7, ip: address }],
      'wrong-name': [{ type: 2, value: '127.254.254.254' }],
    }[kind];
    const certificate = issue(pair.publicKey, `node ${address}`, authority, [
      { name: 'subjectAltName', altNames },
    ]);
    const files = {
      'ca-cert.pem': forge.pki.certificateToPem(authority.certificate),
      'cert.pem': forge.pki.certificateToPem(certificate),
      'key.pem': forge.pki.privateKeyToPem(pair.privateKey),
    };
    await mkdir(dir, { recursive: true });
    for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text, { mode: 0o600 });
    const conf = join(dir, 'couch_dist.conf');
    const sides = [
      `{server, [${options(dir)}, {fail_if_no_peer_cert, true}]}`,
      `{client, [${options(dir)}]}`,
    ];
    await writeFile(conf, `[${sides.join(',\n ')}].\n`);
    return conf;
  }

  #authority(name: string): Authority {
    const known = this.#authorities.get(name);
    if (known !== undefined) return known;
    const pair = this.#pair(name);
    const authority = {
      key: pair.privateKey,
      certificate: issue(
        pair.publicKey,
        name,
        undefined,
        [{ name: 'basicConstraints', cA: true }],
        pair.privateKey,
      ),
    };
    this.#authorities.set(name, authority);
    return authority;
  }

  #pair(name: string): Pair {
    const known = this.#pairs.get(name);
    if (known !== undefined) return known;
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const pem = (key: KeyObject, type: 'spki' | 'pkcs8') => key.export({ type, format: 'pem' }) as string;
    const pair = {
      publicKey: forge.pki.publicKeyFromPem(pem(publicKey, 'spki')),
      privateKey: forge.pki.privateKeyFromPem(pem(privateKey, 'pkcs8')),
    };
    this.#pairs.set(name, pair);
    return pair;
  }
}

function options(dir: string): string {
  const files = ['cacertfile:ca-cert.pem', 'certfile:cert.pem', 'keyfile:key.pem'].map((entry) => {
    const [key, file] = entry.split(':') as [string, string];
    return `{${key}, "${join(dir, file)}"}`;
  });
  return [...files, '{verify, verify_peer}', "{versions, ['tlsv1.3']}"].join(', ');
}

function issue(
  publicKey: forge.pki.rsa.PublicKey,
  name: string,
  issuer: Authority | undefined,
  extensions: object[],
  selfKey?: forge.pki.rsa.PrivateKey,
): forge.pki.Certificate {
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = publicKey;
  certificate.serialNumber = `01${Math.floor(Math.random() * 1e9)
    .toString(16)
    .padStart(8, '0')}`;
  certificate.validity.notBefore = new Date(Date.now() - 86_400_000);
  certificate.validity.notAfter = new Date(Date.now() + 86_400_000);
  const subject = [{ name: 'commonName', value: name }];
  certificate.setSubject(subject);
  certificate.setIssuer(issuer === undefined ? subject : issuer.certificate.subject.attributes);
  certificate.setExtensions(extensions);
  certificate.sign((issuer?.key ?? selfKey) as forge.pki.rsa.PrivateKey, forge.md.sha256.create());
  return certificate;
}
