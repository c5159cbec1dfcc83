import { createHash } from 'node:crypto';
import { type Config, limitOf } from './config.ts';

/** What came later has no part in the digest while it is as before: a member of an older version has it as well. */
const DEFAULT_SHARING_PORT = 8444;

/**
 * A short digest over what must be the same on every node of a role, so that drift shows in `status`: 16 hexadecimal
 * characters. Addresses, devices and the machine's own names are left out.
 */
export function settingsDigest(config: Config): string {
  const { sharing_port, ...edge } = config.edge;
  const shared = {
    role: config.role,
    cluster: config.node.cluster,
    preset: config.membership.preset,
    floating: {
      mode: config.floating.mode,
      addresses: [...config.floating.addresses].sort(),
      // Left out elsewhere, so that a member of a former version has the same digest.
      ...(config.floating.mode === 'api' && { provider: config.floating.provider }),
    },
    edge: { ...edge, ...(sharing_port !== DEFAULT_SHARING_PORT && { sharing_port }) },
    ...(config.certificates.names.length > 0 && { certificates: config.certificates }),
    couchdb: config.couchdb,
    services: config.services.map((service) => ({
      name: service.name,
      port: service.port,
      path_prefix: service.path_prefix,
      health_path: service.health_path,
      ...limitOf(service),
    })),
  };
  return createHash('sha256').update(JSON.stringify(shared)).digest('hex').slice(0, 16);
}
