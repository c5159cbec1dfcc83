import { readFile } from 'node:fs/promises';

/** A TCP socket that listens on this host. */
export interface Listening {
  /** `0.0.0.0` (and IPv6's `::`) mean every address. */
  readonly address: string;
  readonly port: number;
  readonly uid: number;
}

const LISTEN = '0A';

/**
 * All listening sockets, from net/tcp and net/tcp6 of this process (proc(5)): needs no privilege. /proc/net itself is
 * hidden from the daemon (`ProcSubset=pid`).
 */
export async function listeningSockets(): Promise<Listening[]> {
  const texts = await Promise.all(
    ['/proc/self/net/tcp', '/proc/self/net/tcp6'].map((file) => readFile(file, 'utf8').catch(() => '')),
  );
  return texts.flatMap(parseProcNetTcp);
}

export function parseProcNetTcp(text: string): Listening[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, local = '', , state, , , , uid] = line.trim().split(/\s+/);
      const [address = '', port = ''] = local.split(':');
      if (state !== LISTEN) return [];
      return [{ address: addressOf(address), port: Number.parseInt(port, 16), uid: Number(uid) }];
    });
}

/**
 * IPv4 is one 32-bit word in the machine's byte order (little-endian on every machine that we are built for).
 */
function addressOf(hex: string): string {
  const word = hex.length === 8 ? hex : /^0{16}FFFF0000/.test(hex) ? hex.slice(24) : undefined;
  if (word === undefined) return /^0+$/.test(hex) ? '0.0.0.0' : 'ipv6';
  return [6, 4, 2, 0].map((at) => Number.parseInt(word.slice(at, at + 2), 16)).join('.');
}

/** The sockets that block a listener on this address and port. `*` means every address. */
export function inTheWay(sockets: readonly Listening[], address: string, port: number): Listening[] {
  return sockets.filter(
    (each) =>
      each.port === port && (each.address === address || each.address === '0.0.0.0' || address === '*'),
  );
}
