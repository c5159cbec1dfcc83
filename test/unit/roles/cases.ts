import type { NodeRecord, Role } from '../../../src/daemon/membership/types.ts';
import {
  appBird,
  appHaproxy,
  type AppInput,
  appLayer2,
  type AppRoleConfig,
  floatingDecision,
} from '../../../src/roles/app.ts';
import type { DbInput } from '../../../src/roles/db.ts';
import type { AppSituation } from '../../../src/roles/situation.ts';
import { type EffectiveMember, type EffectiveView, plainRotation } from '../../../src/roles/effective.ts';

/** Members as the guard layer hands them to the roles, by what differs from a node that is alive and up. */
export interface MemberCase {
  readonly record?: Partial<NodeRecord>;
  readonly state?: EffectiveMember['state'];
  readonly restarting?: boolean;
  readonly rank?: number;
  readonly self?: boolean;
}

export function member(
  name: string,
  { record, state = 'alive', restarting = false, rank, self = false }: MemberCase = {},
): EffectiveMember {
  const [host = '', role = ''] = name.split('/');
  const number = Number(host.replace(/\D/g, ''));
  const whole: NodeRecord = {
    peerId: `peer-${name}`,
    name,
    role: role as Role,
    address: `10.0.0.${(role === 'app' ? 10 : 20) + number}`,
    port: 4101,
    incarnation: 1,
    sequence: 0,
    startId: '00',
    version: '0.1.0',
    protocolMin: 1,
    protocolMax: 1,
    status: 'alive',
    health: 'up',
    maintenance: false,
    services: role === 'app' ? [{ name: 'api', health: 'up' }] : [{ name: 'couchdb', health: 'up' }],
    tags: {},
    load: 0,
    settingsDigest: '',
    ...record,
  };
  const plain = plainRotation({ record: whole, state, restarting });
  return { record: whole, state, ...plain, freshMs: self ? 0 : 1000, rank: rank ?? number - 1, self };
}

export const view = (
  members: readonly EffectiveMember[],
  changes: Partial<EffectiveView> = {},
): EffectiveView => ({
  self: members.find(({ self }) => self)?.record.peerId ?? '',
  members,
  namesakes: [],
  synced: true,
  held: [],
  revoked: [],
  revokedAuthorities: [],
  knownCertificates: [],
  ...changes,
});

const config: AppRoleConfig = {
  cluster: 'shop',
  privateAddress: '10.0.0.11',
  httpsPort: 443,
  httpPort: 80,
  doorPort: 8443,
  statsPort: 8404,
  sharingPort: 8444,
  databasePort: 5984,
  dbDoorPort: 6984,
  floating: { mode: 'bgp', device: 'bm-float', addresses: ['192.0.2.7'] },
  services: [{ name: 'api', port: 3000, prefix: '/api', healthPath: '/healthz', local: true }],
};

export const well: AppSituation = {
  health: 'up',
  edge: 'answers',
  maintenance: false,
  leaving: false,
  holds: false,
  upMs: 60_000,
};

export function appInput(
  members: readonly EffectiveMember[],
  local: Partial<AppSituation> = {},
  changes: { config?: Partial<AppRoleConfig>; view?: Partial<EffectiveView> } = {},
): AppInput {
  const whole = { ...config, ...changes.config };
  const seen = view(members, changes.view);
  return {
    view: seen,
    config: whole,
    certificates: { node: 'node', ca: 'ca', edge: undefined },
    answerWrongly: [],
    requestsLogged: false,
    announcement: floatingDecision(whole.floating.mode, { view: seen, local: { ...well, ...local } }),
  };
}

/** What an app node's programs are to be. */
const SECRETS = {
  cookie: 'A'.repeat(40),
  secret: 'a'.repeat(64),
  adminName: 'admin',
  adminHash: `-pbkdf2:sha256-${'a'.repeat(64)},${'b'.repeat(32)},600000`,
  uuid: 'c'.repeat(32),
};

/** What role db of db1 is decided from, with its secrets and nothing to do. */
export function dbInput(seen: EffectiveView, certificates: DbInput['certificates']): DbInput {
  const ports = { doorPort: 6984, peerPort: 6985, statsPort: 8405, httpPort: 15984 };
  return {
    view: seen,
    config: { cluster: 'shop', privateAddress: '10.0.0.21', ...ports },
    certificates,
    settings: SECRETS,
    removed: [],
    leaving: false,
    couchdb: undefined,
  };
}

export const appDesired = (input: AppInput) => ({
  haproxy: appHaproxy(input),
  bird: appBird(input),
  layer2: appLayer2(input),
});
