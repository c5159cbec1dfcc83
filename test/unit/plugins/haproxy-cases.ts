import type { AppHaproxy, DbHaproxy, PeerServer } from '../../../src/plugins/haproxy/desired.ts';
import type { Layout, Rendered } from '../../../src/plugins/haproxy/rendered.ts';
import type { ServerState } from '../../../src/plugins/haproxy/runtime.ts';
import type { Running } from '../../../src/plugins/haproxy/plan.ts';

/** Made-up but well-formed values for the tables. */
export const layout: Layout = { directory: '/var/lib/x/app', statsSocket: '/run/x/app/stats.sock' };
const pem = (what: string): string => `-----BEGIN CERTIFICATE-----\n${what}\n-----END CERTIFICATE-----\n`;

export const peer = (name: string, duty: PeerServer['duty'] = 'ready', why = 'alive and up'): PeerServer => ({
  name,
  address: `10.0.0.${name.slice(-1)}`,
  port: 6984,
  duty,
  why,
});

export const app = (changes: Partial<AppHaproxy> = {}): AppHaproxy => ({
  instance: 'app',
  privateAddress: '10.0.0.11',
  statsPort: 8404,
  certificates: { node: pem('bm9kZQ=='), ca: pem('Y2E='), edge: undefined },
  revoked: [],
  revokedAuthorities: [],
  knownCertificates: [],
  edge: { addresses: ['*'], httpsPort: 443, httpPort: 80, hstsMaxAgeSeconds: undefined },
  doorPort: 8443,
  services: [
    {
      name: 'api',
      prefix: '/api',
      healthPath: '/healthz',
      localPort: 3000,
      peers: { verifySuffix: 'app.shop.internal', servers: [{ ...peer('app1'), port: 8443 }] },
    },
  ],
  databasePort: 5984,
  databases: { verifySuffix: 'db.shop.internal', servers: [peer('db1'), peer('db2')] },
  doors: { verifySuffix: 'app.shop.internal', servers: [] },
  ...changes,
});

export const db = (changes: Partial<DbHaproxy> = {}): DbHaproxy => ({
  instance: 'db',
  privateAddress: '10.0.0.21',
  statsPort: 8405,
  certificates: app().certificates,
  revoked: [],
  revokedAuthorities: [],
  knownCertificates: [],
  appDoorPort: 6984,
  peerDoorPort: 6985,
  couchdbPort: 15984,
  peers: { verifySuffix: 'db.shop.internal', servers: [{ ...peer('db2'), port: 6985 }] },
  databases: { given: true, why: 'all db nodes are connected and agree' },
  ...changes,
});

/** A host where no certificate for the site was in use. */
export const noSite = { former: undefined, refused: new Map<string, string>(), nowMs: 0 };

/** A HAProxy that is exactly as rendered. */
export function runningAs(rendered: Rendered, changes: Partial<Running> = {}): Running {
  const servers = rendered.servers.map(
    (server): ServerState => ({
      backend: server.backend,
      name: server.name,
      address: server.address,
      port: server.port,
      maint: server.duty === 'maint',
      drain: server.duty === 'drain',
      up: true,
      checked: true,
      fullWeight: true,
    }),
  );
  return {
    pid: 1,
    addsServers: true,
    structure: rendered.structure,
    servers,
    frontends: new Map(rendered.frontends.map((name) => [name, true])),
    busy: new Set<string>(),
    revoked: rendered.revoked.map(({ mark }) => mark),
    ...changes,
  };
}
