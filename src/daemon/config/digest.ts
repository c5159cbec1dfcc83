import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { boundsOf, type Config, limitOf } from './config.ts';

/**
 * A setting of a later version is not in the digest while it has its default, so that members of older versions have
 * the same digest.
 */
const DEFAULT_SHARING_PORT = 8444;

/**
 * A short digest of the settings that must be the same on every node of a role, so that `status` shows differences: 16
 * hexadecimal characters. Addresses, devices and the machine's own names are left out.
 */
export function settingsDigest(config: Config): string {
  const { sharing_port, ...edge } = config.edge;
  // Where it is installed is each machine's own.
  const { directory: _directory, ...couchdb } = config.couchdb;
  const shared = {
    role: config.role,
    cluster: config.node.cluster,
    preset: config.membership.preset,
    floating: {
      mode: config.floating.mode,
      addresses: [...config.floating.addresses].sort(),
      // Left out in other modes, so that a member of an older version has the same digest.
      ...(config.floating.mode === 'api' && { provider: config.floating.provider }),
    },
    edge: { ...edge, ...(sharing_port !== DEFAULT_SHARING_PORT && { sharing_port }) },
    ...(config.certificates.names.length > 0 && { certificates: config.certificates }),
    couchdb,
    // Left out where there are none, as members of older versions have none.
    ...(config.snippets.files.length > 0 && {
      snippets: config.snippets.files.map(({ file, text }) => [basename(file), text]),
    }),
    services: config.services.map((service) => ({
      name: service.name,
      port: service.port,
      path_prefix: service.path_prefix,
      health_path: service.health_path,
      ...limitOf(service),
      ...boundsOf(service),
    })),
  };
  return createHash('sha256').update(JSON.stringify(shared)).digest('hex').slice(0, 16);
}
