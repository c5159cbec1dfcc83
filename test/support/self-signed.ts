import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/**
 * Makes a key and a certificate that only itself signs, valid for two days: `key.pem` and `cert.pem` in a directory.
 *
 * @param alternative e.g. `IP:127.0.0.1` or `DNS:localhost`
 * @returns the paths of both
 */
export async function selfSigned(
  directory: string,
  commonName: string,
  alternative?: string,
): Promise<{ readonly key: string; readonly cert: string }> {
  const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
  await run(
    'openssl',
    [
      ...['req', '-x509', '-nodes', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-days', '2'],
      ...['-subj', `/CN=${commonName}`, '-keyout', key, '-out', cert],
      ...(alternative === undefined ? [] : ['-addext', `subjectAltName=${alternative}`]),
    ],
    { timeout: 60_000 },
  );
  return { key, cert };
}
