import type { Service } from '../config/config.ts';
import { healthOf } from '../config/service-health.ts';
import type { Check } from './health.ts';
import { REDIRECTS } from './meanings.ts';
import type { ProbeTarget } from './probe.ts';

/** What HAProxy uses too where a service says nothing else. */
type AsHaproxy = Pick<Extract<ProbeTarget, { kind: 'http' }>, 'kind' | 'host' | 'statuses'>;

/** The check of a service on this node, in the form in which HAProxy checks it too. */
export function serviceCheck(service: Service, asHaproxy: AsHaproxy): Check {
  const { tcp, method, headers, body, timing } = healthOf(service);
  const at = { address: '127.0.0.1', port: service.port };
  return {
    name: service.name,
    required: service.required,
    spread: true,
    unit: service.unit,
    timing,
    target: tcp
      ? { kind: 'tcp', ...at }
      : {
          ...asHaproxy,
          ...at,
          ...{ method, headers, body },
          host: service.health_host,
          meanings: REDIRECTS,
          ...(service.health_status.length > 0 && { statuses: service.health_status }),
          path: service.health_path,
        },
  };
}
