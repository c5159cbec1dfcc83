import { createInterface } from 'node:readline';
import { namespaceOf } from '../lab/namespace.ts';
import type { Host, Lab } from '../lab/index.ts';
import { spawnWithUs } from '../support/with-us.ts';
import { SERVICE_PORT } from './answering.ts';

/**
 * The programs beside which failover is measured: Debian's keepalived, twice, and Debian's Monit, on the hosts of one
 * lab and looking at the same service. Keepalived moves an address on the public network by VRRP; Monit, as the cluster
 * before this one had it, takes a device down, and BIRD withdraws the address on it.
 */
export type Rival = 'keepalived' | 'keepalived_fast' | 'monit';
export const RIVALS: readonly Rival[] = ['keepalived', 'keepalived_fast', 'monit'];
type Vrrp = Exclude<Rival, 'monit'>;

/** Seconds between two adverts, and the address. */
const VRRP: Readonly<
  Record<Vrrp, { readonly advert: number; readonly id: number; readonly address: string }>
> = {
  keepalived: { advert: 1, id: 51, address: '198.51.100.201' },
  keepalived_fast: { advert: 0.2, id: 52, address: '198.51.100.202' },
};
/** Beside the lab's own floating address; announced by the same BIRD, and by what Monit says alone. */
export const MONIT_ADDRESS = '203.0.113.11';
const MONIT_DEVICE = 'monit-float';
const VERDICT = '/run/bench/verdict';
/** As long as our own checks wait by default. */
const CHECK_TIMEOUT_S = 2;

/** Asks each 0.2 s without starting a process, and writes when the answer changes: keepalived watches the file. */
const LOOK = `#!/bin/bash
exec {never}<> <(:)
last=
while :; do
  verdict=1
  if exec 3<>/dev/tcp/127.0.0.1/${SERVICE_PORT}; then
    printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3
    if read -r -t ${CHECK_TIMEOUT_S} status <&3; then
      case $status in *' 200 '*) verdict=0;; esac
    fi
    exec 3>&-
  fi 2>/dev/null
  [ "$verdict" = "$last" ] || { echo "$verdict" >${VERDICT}; last=$verdict; }
  read -r -t 0.2 -u $never
done
`;

const MONITRC = `set daemon 10
set pidfile /run/bench/monit.pid
set idfile /run/bench/monit.id
set statefile /run/bench/monit.state
check host service with address 127.0.0.1
  if failed port ${SERVICE_PORT} protocol http request "/" with timeout ${CHECK_TIMEOUT_S} seconds
    then exec "/usr/sbin/ip link set ${MONIT_DEVICE} down"
    else if succeeded then exec "/usr/sbin/ip link set ${MONIT_DEVICE} up"
`;

const unit = (command: string): string => `[Service]\nExecStart=${command}\nRestart=always\n`;

function keepalivedConfiguration(first: boolean): string {
  const instances = Object.entries(VRRP).map(
    ([name, { advert, id, address }]) => `vrrp_instance ${name} {
  state BACKUP
  interface eth0
  virtual_router_id ${id}
  priority ${first ? 150 : 100}
  advert_int ${advert}
  virtual_ipaddress { ${address}/24 }
  track_file { service weight 0 }
}`,
  );
  return `global_defs { vrrp_version 3 }
track_file service { file ${VERDICT} weight 0 }
${instances.join('\n')}
`;
}

/** Puts the rivals on a host; `first` gets keepalived's addresses while all is well. */
export async function installRivals(host: Host, rivals: readonly Rival[], first: boolean): Promise<void> {
  if (rivals.some((rival) => rival !== 'monit')) {
    await host.writeFile('/usr/local/bin/bench-look', { content: LOOK, mode: 0o755 });
    await host.writeFile('/etc/systemd/system/bench-look.service', unit('/usr/local/bin/bench-look'));
    await host.writeFile('/etc/keepalived/keepalived.conf', keepalivedConfiguration(first));
    // No IPVS: nothing is balanced here.
    await host.writeFile('/etc/default/keepalived', 'DAEMON_ARGS="-P"\n');
    await host.must(['systemctl', 'daemon-reload']);
    await host.start('bench-look.service');
    await host.start('keepalived.service');
  }
  if (rivals.includes('monit')) {
    await host.must(['ip', 'link', 'add', MONIT_DEVICE, 'type', 'bridge']);
    await host.must(['ip', 'addr', 'add', `${MONIT_ADDRESS}/32`, 'dev', MONIT_DEVICE]);
    await host.must(['ip', 'link', 'set', MONIT_DEVICE, 'up']);
    await host.writeFile('/etc/monit/bench.monitrc', { content: MONITRC, mode: 0o600 });
    const command = '/usr/bin/monit -I -c /etc/monit/bench.monitrc';
    await host.writeFile('/etc/systemd/system/bench-monit.service', unit(command));
    await host.must(['systemctl', 'daemon-reload']);
    await host.start('bench-monit.service');
  }
}

/** What BIRD must have to announce what Monit keeps, added to the lab's configuration. */
export function withMonit(birdConfiguration: string): string {
  return `${birdConfiguration.replace('/32 ] then accept', `/32, ${MONIT_ADDRESS}/32 ] then accept`)}
protocol direct monit { ipv4; interface "${MONIT_DEVICE}"; }
`;
}

export interface Move {
  /** Hardware address to which the router sends now. */
  readonly to: string;
  /** Unix time, ms, stamped by `ip monitor`. */
  readonly atMs: number;
}

/** Where the provider's router sends the addresses of VRRP, by its own table of neighbours. */
export class Neighbours {
  readonly #lab: Lab;
  readonly #moves = new Map<string, Move[]>();

  constructor(lab: Lab) {
    this.#lab = lab;
    const argv = ['-n', namespaceOf(lab, 'router'), '-o', '-tshort', 'monitor', 'neigh'];
    const monitor = spawnWithUs('ip', argv, { stdio: ['ignore', 'pipe', 'ignore'] });
    monitor.unref();
    (monitor.stdout as unknown as { unref(): void }).unref();
    createInterface(monitor.stdout).on('line', (line) => this.#take(line));
  }

  /** Changes of where an address of VRRP is, oldest first. */
  moves(rival: Vrrp): readonly Move[] {
    return this.#moves.get(VRRP[rival].address) ?? [];
  }

  where(rival: Vrrp): string | undefined {
    return this.moves(rival).at(-1)?.to;
  }

  /** The router looks for a neighbour only when it has something to send, and hears announcements of those it knows. */
  async refresh(): Promise<void> {
    const addresses = Object.values(VRRP).map(({ address }) => address);
    await Promise.all(addresses.map((address) => this.#lab.router.exec(['ping', '-c1', '-W1', address])));
  }

  #take(line: string): void {
    const found = parseNeighbour(line);
    if (found === undefined) return;
    const moves = this.#moves.get(found.address) ?? [];
    this.#moves.set(found.address, moves);
    if (moves.at(-1)?.to !== found.to) moves.push({ to: found.to, atMs: found.atMs });
  }
}

/** Reads `[2026-01-02T03:04:05.678901] 198.51.100.201 dev public lladdr 02:00:00:51:00:0b REACHABLE`. */
export function parseNeighbour(line: string): (Move & { readonly address: string }) | undefined {
  const [, seconds = '', fraction = '0', address = '', to = ''] =
    /^\[([\dT:-]+)\.(\d+)\]\s*(198\.51\.100\.\d+) dev public lladdr (\S+)/.exec(line) ?? [];
  if (to === '') return undefined;
  return { address, to, atMs: Date.parse(seconds) + Number(`0.${fraction}`) * 1000 };
}
