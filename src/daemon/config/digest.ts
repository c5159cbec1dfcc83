import { createHash } from 'node:crypto';
import type { Config } from './config.ts';

/**
 * A short digest over what must be the same on every node of a role, so that drift shows in `status`: 16 hexadecimal
 * characters. Addresses, devices and the machine's own names are left out.
 */
export function settingsDigest(config: Config): string {
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
    edge: config.edge,
    ...(config.certificates.names.length > 0 && { certificates: config.certificates }),
    couchdb: config.couchdb,
    services: config.services.map(({ name, port, path_prefix, health_path }) => ({
      name,
      port,
      path_prefix,
      health_path,
    })),
  };
  return createHash('sha256').update(JSON.stringify(shared)).digest('hex').slice(0, 16);
}
