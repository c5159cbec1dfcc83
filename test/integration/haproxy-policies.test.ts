import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import t from 'tap';
import type { PluginError } from '../../src/plugins/contract.ts';
import { freePort } from '../support/free-port.ts';
import { until } from '../support/until.ts';

/**
 * HAProxy under the system-wide cryptographic policies of Enterprise Linux. There OpenSSL's own configuration includes
 * the lines of the policy; here it is a file for the HAProxys of this test.
 */
const policies = await mkdtemp(join(tmpdir(), 'bm-policies-'));
t.teardown(() => rm(policies, { recursive: true, force: true }));
const file = join(policies, 'openssl.cnf');
const wrapper = join(policies, 'haproxy');
const given = process.env['LAB_HAPROXY'] ?? '';
const real = given === '' ? 'haproxy' : join(given, 'haproxy');
// The daemon gives the programs that it runs no environment.
await writeFile(wrapper, `#!/bin/sh\nOPENSSL_CONF=${file} exec ${real} "$@"\n`);
await chmod(wrapper, 0o755);
process.env['LAB_HAPROXY'] = policies;
const { appDesired, Bed, converge, dbDesired, get, peer } = await import('./haproxy-bed.ts');

const AES_256 = 'TLS_AES_256_GCM_SHA384';
const AES_128 = 'TLS_AES_128_GCM_SHA256';
const CHACHA = 'TLS_CHACHA20_POLY1305_SHA256';
const PSS = [256, 384, 512].flatMap((bits) => [`rsa_pss_pss_sha${bits}`, `rsa_pss_rsae_sha${bits}`]);
const SIGNATURES = [256, 384, 512].flatMap((bits) => [`ECDSA+SHA${bits}`, `RSA+SHA${bits}`]);
const NIST = ['secp256r1', 'secp384r1', 'secp521r1'];

interface Policy {
  readonly level: number;
  /** Of TLS 1.2, beside the level. */
  readonly ciphers: string;
  /** Of TLS 1.3. */
  readonly suites: readonly string[];
  readonly groups: readonly string[];
}

/** What the policies of crypto-policies of 2024 have OpenSSL do, by their names there. */
const POLICIES: Readonly<Record<string, Policy>> = {
  DEFAULT: {
    ...{ level: 2, ciphers: 'kEECDH:kRSA:kEDH:!aNULL:!eNULL:!MD5:-3DES:-SEED:-CAMELLIA:-ARIA' },
    ...{ suites: [AES_256, CHACHA, AES_128], groups: ['X25519', 'X448', ...NIST] },
  },
  FUTURE: {
    ...{ level: 3, ciphers: 'kEECDH:kEDH:-kRSA:-AES128:-SHA1:-SHA256:!aNULL:!eNULL:!MD5:-CAMELLIA:-ARIA' },
    ...{ suites: [AES_256, CHACHA], groups: ['X25519', 'X448', ...NIST] },
  },
  FIPS: {
    ...{ level: 2, ciphers: 'kEECDH:kEDH:-kRSA:-CHACHA20:!aNULL:!eNULL:!MD5:-3DES:-CAMELLIA:-ARIA' },
    ...{ suites: [AES_256, AES_128], groups: NIST },
  },
};

const textOf = ({ level, ciphers, suites, groups }: Policy): string =>
  [
    'openssl_conf = start',
    '[start]',
    'ssl_conf = ssl',
    '[ssl]',
    'system_default = policy',
    '[policy]',
    `CipherString = @SECLEVEL=${level}:${ciphers}`,
    `Ciphersuites = ${suites.join(':')}`,
    'MinProtocol = TLSv1.2',
    `SignatureAlgorithms = ${[...SIGNATURES, ...PSS].join(':')}`,
    `Groups = ${groups.join(':')}`,
    '',
  ].join('\n');

// As ours are.
const bed = await Bed.make(3072);
t.teardown(() => bed.end());
const ca = bed.pki.ca;
const [app1, db1] = [
  await bed.pki.leaf('app1', 'app', undefined, 3072),
  await bed.pki.leaf('db1', 'db', undefined, 3072),
];
const weak = await bed.pki.leaf('www', 'site');
const couch = await bed.server((_, response) => response.end('couch'));
const api = await bed.server((_, response) => response.end('api'));
const tls = { ca, checkServerIdentity: () => undefined };

/** Whether an edge takes a client that offers one suite of TLS 1.3, or one cipher of TLS 1.2. */
function takes(
  host: string,
  ciphers: string,
  version: 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3' = 'TLSv1.3',
): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTls({
      ...{ host, port: 443, rejectUnauthorized: false },
      ...{ ciphers, minVersion: version, maxVersion: version },
    });
    const end = (taken: boolean) => () => {
      socket.destroy();
      resolve(taken);
    };
    socket.once('secureConnect', end(true)).once('error', end(false));
  });
}

for (const [index, [name, policy]] of Object.entries(POLICIES).entries())
  t.test(
    `the policy ${name}: clients, doors and databases have TLS, and what it forbids is refused`,
    async (t) => {
      await writeFile(file, textOf(policy));
      const [here, db] = [bed.address(10 + index), bed.address(20 + index)];
      await bed.launch(`db-${name}`, dbDesired({ address: db, node: db1, ca, couchdbPort: couch.port }));
      const doors = { verifySuffix: 'app.shop.internal', servers: [peer('app1', here, 8443)] };
      const desired = appDesired({
        ...{ address: here, node: app1, ca, databasePort: await freePort() },
        services: [{ name: 'api', prefix: '/', healthPath: '/healthz', localPort: api.port, peers: doors }],
        databases: [peer('db1', db, 6984)],
      });
      const edge = await bed.launch(`edge-${name}`, desired);
      for (const [what, url, body] of [
        ['the edge, by its own door', `https://${here}/`, 'api'],
        ['the databases', `http://127.0.0.1:${desired.databasePort}/x`, 'couch'],
      ] as const)
        await until(async () => (await get(url, tls)).body === body, { what, deadlineMs: 30_000 });
      for (const suite of [AES_256, AES_128, CHACHA])
        t.equal(await takes(here, suite), policy.suites.includes(suite), suite);
      t.equal(await takes(here, 'ECDHE-RSA-AES256-GCM-SHA384', 'TLSv1.2'), true, 'TLS 1.2');
      t.equal(
        await takes(here, 'AES256-GCM-SHA384', 'TLSv1.2'),
        name === 'DEFAULT',
        'without forward secrecy',
      );
      t.equal(await takes(here, 'DEFAULT@SECLEVEL=0', 'TLSv1.1'), false, 'TLS 1.1');

      const shown = { ...desired, certificates: { ...desired.certificates, edge: weak.pem } };
      const error = await converge(edge.plugin, shown).then(
        () => undefined,
        (failed: unknown) => failed as PluginError,
      );
      t.equal(error?.code, policy.level > 2 ? 'site-certificate-refused' : undefined, 'a site with RSA 2048');
      if (policy.level > 2) await converge(edge.plugin, shown);
      t.equal((await get(`https://${here}/`, tls)).body, 'api', 'the edge serves on');
    },
  );
