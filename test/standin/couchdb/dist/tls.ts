import { readFileSync } from 'node:fs';
import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import { connect as connectTls, createServer as createTlsServer, type PeerCertificate } from 'node:tls';
import type { VmArgs } from '../start/vm_args.ts';

type Files = { cert: Buffer; key: Buffer; ca: Buffer; tls13: boolean };

/** Plain TCP or TLS sockets, as vm.args has it for this node and for the peer asked. */
export class Sockets {
  readonly #vm: VmArgs;
  readonly #server: Files | undefined;
  readonly #client: Files | undefined;

  constructor(vm: VmArgs) {
    this.#vm = vm;
    if (!vm.tls || vm.tlsOptionsFile === undefined) return;
    const text = readFileSync(vm.tlsOptionsFile, 'utf8').replaceAll(/%.*$/gm, '');
    const at = text.search(/\{\s*client\s*,/);
    this.#server = filesOf(at < 0 ? text : text.slice(0, at));
    this.#client = filesOf(at < 0 ? text : text.slice(at));
  }

  listen(onSocket: (socket: Socket) => void): Server {
    if (!this.#vm.tls || this.#server === undefined) return createServer(onSocket);
    const { cert, key, ca, tls13 } = this.#server;
    const server = createTlsServer({
      cert,
      key,
      ca,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: tls13 ? 'TLSv1.3' : 'TLSv1.2',
    });
    server.on('secureConnection', onSocket);
    server.on('tlsClientError', (_error, socket) => socket.destroy());
    return server;
  }

  /** Opens a socket to the peer; `ready` is called when it can be written to. */
  open(peer: string, host: string, port: number, ready: (socket: Socket) => void): Socket {
    if (!this.#vm.tls || this.#client === undefined || this.#isPlain(peer)) {
      const socket = connectTcp({ host, port });
      socket.once('connect', () => ready(socket));
      return socket;
    }
    const { cert, key, ca, tls13 } = this.#client;
    const socket = connectTls({
      host,
      port,
      cert,
      key,
      ca,
      minVersion: tls13 ? 'TLSv1.3' : 'TLSv1.2',
      checkServerIdentity: (_name, certificate) => checkName(host, certificate),
    });
    socket.once('secureConnect', () => ready(socket));
    return socket;
  }

  #isPlain(peer: string): boolean {
    return this.#vm.plainPatterns.some((pattern) => {
      const escaped = pattern.replaceAll(/[.+^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*');
      return new RegExp(`^${escaped}$`).test(peer);
    });
  }
}

/** OTP 25 compares an IP host of a node name with DNS names only: an IP SAN alone never connects. */
function checkName(host: string, certificate: PeerCertificate): Error | undefined {
  const names = (certificate.subjectaltname ?? '').split(', ');
  return names.includes(`DNS:${host}`) ? undefined : new Error(`hostname check failed for ${host}`);
}

function filesOf(text: string): Files {
  const file = (key: string) => {
    const path = text.match(new RegExp(`\\{\\s*${key}\\s*,\\s*"([^"]+)"`))?.[1];
    if (path === undefined) throw new Error(`ssl_dist_optfile names no ${key}`);
    return readFileSync(path);
  };
  return {
    cert: file('certfile'),
    key: file('keyfile'),
    ca: file('cacertfile'),
    tls13: /versions.*'tlsv1\.3'/.test(text),
  };
}
