import type { DesiredFacts } from '../../plugins/couchdb/desired.ts';
import type { Certificates } from '../../plugins/haproxy/desired.ts';
import type { AppInput } from '../../roles/app.ts';
import type { DbInput } from '../../roles/db.ts';
import { boundsOf, floatingSettings, limitOf, ownPorts } from '../config/config.ts';
import { healthOf } from '../config/service-health.ts';
import type { Look, Scene, ShownCertificates } from './look.ts';

/** The input of a role's policy, from a look. Pure. */

/** @returns undefined until the certificates were read */
export function appInput({ scene, view, floating }: Look): AppInput | undefined {
  const { config, certificates } = scene;
  if (certificates === undefined) return undefined;
  const { node, network, edge, services, couchdb } = config;
  return {
    view,
    certificates: forHaproxy(certificates),
    answerWrongly: scene.answerWrongly,
    requestsLogged: scene.requestsLogged,
    announcement: floating ?? { announce: false, rivals: [], why: 'floating.mode is "off"' },
    config: {
      cluster: node.cluster,
      privateAddress: network.private_address,
      httpsPort: edge.https_port,
      httpPort: edge.http_port,
      doorPort: edge.door_port,
      statsPort: edge.stats_port,
      sharingPort: edge.sharing_port,
      databasePort: edge.database_port,
      hstsMaxAgeSeconds: edge.hsts_max_age_s,
      challengeThumbprint: scene.site?.thumbprint,
      errorPage: config.errorPage,
      statisticsPassword: config.statisticsPassword,
      snippets: { ...config.snippets, ports: ownPorts(config) },
      dbDoorPort: couchdb.door_port,
      floating: floatingSettings(config),
      services: services.map((service) => ({
        name: service.name,
        port: service.port,
        prefix: service.path_prefix,
        healthPath: service.health_path,
        healthHost: service.health_host,
        healthStatus: service.health_status,
        health: healthOf(service),
        ...limitOf(service),
        ...boundsOf(service),
        local: service.local,
      })),
    },
  };
}

/** @returns undefined until the certificates were read */
export function dbInput({ scene, view }: Look): DbInput | undefined {
  const { config, certificates, phase } = scene;
  if (certificates === undefined) return undefined;
  const { node, network, couchdb } = config;
  return {
    view,
    certificates: forHaproxy(certificates),
    settings: couchDbSettings(scene, certificates),
    removed: scene.roster.removedDatabases,
    // A leave by the operator. A stop of the daemon is none: data stays.
    leaving: phase === 'leaving' || phase === 'left',
    couchdb: scene.couchdb,
    config: {
      cluster: node.cluster,
      privateAddress: network.private_address,
      doorPort: couchdb.door_port,
      peerPort: couchdb.peer_port,
      statsPort: couchdb.stats_port,
      statisticsPassword: config.statisticsPassword,
      httpPort: couchdb.http_port,
    },
  };
}

/** HAProxy wants chain and key in one file. */
function forHaproxy({ chain, key, ca, edge, edgeProblem }: ShownCertificates): Certificates {
  return { node: `${chain}\n${key}`, ca, edge, ...(edgeProblem !== undefined && { edgeProblem }) };
}

function couchDbSettings(
  { config, secrets, couchdbRetired, couchdbData }: Scene,
  { ca, chain, key }: ShownCertificates,
): DesiredFacts['settings'] | undefined {
  if (secrets?.kind !== 'db' || couchdbRetired) return undefined;
  const { couchdb } = config;
  return {
    cookie: secrets.cookie,
    secret: secrets.authSecret,
    adminName: secrets.admin.user,
    adminHash: secrets.admin.hash,
    uuid: secrets.clusterUuid,
    tls: { caPem: ca, certPem: `${chain}\n`, keyPem: key },
    httpPort: couchdb.http_port,
    distributionPort: couchdb.distribution_port,
    n: couchdb.n,
    q: couchdb.q,
    dataDirectory: couchdbData,
    releaseDirectory: couchdb.directory,
  };
}
