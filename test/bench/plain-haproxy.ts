import type { Instance } from '../lab/cluster.ts';
import { parseServers } from '../support/haproxy-servers.ts';
import { until } from '../support/until.ts';
import { SERVICE_PORT } from './answering.ts';
import { SITE_CERTIFICATE } from './failover-bed.ts';

/**
 * A plain HAProxy on each edge beside ours, without a daemon: edge and door as ours, with the same certificates, the
 * same way to the same services, and the settings of HAProxy's own manual. Its servers are changed by hand, on its
 * socket. What fails there under the same load is the load's and the machine's doing.
 */
export const PLAIN_PORT = 9443;
const DOOR_PORT = 9444;
const UNIT = 'bench-haproxy.service';
const FILE = '/etc/bench/haproxy.cfg';
const SOCKET = '/run/bench/haproxy.sock';
const OURS = '/var/lib/bornemisza/haproxy/app/haproxy.cfg';
const PATIENCE_MS = 60_000;

export async function installPlain(edges: readonly Instance[]): Promise<void> {
  for (const edge of edges) {
    const { host } = edge;
    await host.writeFile(FILE, configuration(edge, edges, await host.readFile(OURS)));
    const unit = `[Service]\nExecStart=/usr/sbin/haproxy -db -f ${FILE}\nLimitNOFILE=65536\n`;
    await host.writeFile(`/etc/systemd/system/${UNIT}`, unit);
    await host.must(['systemctl', 'daemon-reload']);
    await host.start(UNIT);
  }
  for (const edge of edges) for (const of of edges) await applied(edge, of, true);
}

export async function removePlain(edges: readonly Instance[]): Promise<void> {
  for (const { host } of edges) await host.stop(UNIT);
}

/** Takes a server out of the plain edge's traffic, or puts it in, and waits until HAProxy shows it. */
export async function setPlain(edge: Instance, of: Instance, sends: boolean): Promise<void> {
  await edge.host.askLine(SOCKET, `set server site/${of.host.name} state ${sends ? 'ready' : 'maint'}`);
  await applied(edge, of, sends);
}

async function applied({ host }: Instance, of: Instance, sends: boolean): Promise<void> {
  await until(
    async () => {
      const servers = parseServers(await host.askLine(SOCKET, 'show stat site 4 -1'));
      return servers.find(({ name }) => name === of.host.name)?.status.startsWith('UP') === sends;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 5, what: `${of.name} at the plain HAProxy of ${host.name}` },
  );
}

function configuration({ host }: Instance, edges: readonly Instance[], ours: string): string {
  const [, node = ''] = / crt (\S+\/node-\S+\.pem)/.exec(ours) ?? [];
  const [, ca = ''] = / ca-file (\S+)/.exec(ours) ?? [];
  const servers = edges.map(
    ({ host: { name, privateAddress } }) =>
      `  server ${name} ${privateAddress}:${DOOR_PORT} ssl verify required ca-file ${ca} crt ${node} check`,
  );
  return `global
  maxconn 8000
  stats socket ${SOCKET} mode 600 level admin
defaults
  mode http
  timeout connect 5s
  timeout client 2m
  timeout server 2m
  option redispatch
frontend edge
  bind *:${PLAIN_PORT} ssl crt ${SITE_CERTIFICATE} alpn h2,http/1.1
  default_backend site
backend site
  balance leastconn
  option httpchk GET /
${servers.join('\n')}
frontend door
  bind ${host.privateAddress}:${DOOR_PORT} ssl crt ${node} ca-file ${ca} verify required
  default_backend local
backend local
  server local 127.0.0.1:${SERVICE_PORT} check
`;
}
