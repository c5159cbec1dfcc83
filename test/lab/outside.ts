import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { selfSigned } from '../support/self-signed.ts';
import { until } from '../support/until.ts';
import type { Host, Lab, Role } from './index.ts';

/** What {@link Outside} starts, and the sshd that a firewall leaves open. Enterprise Linux has no pebble. */
export const OUTSIDE_PROGRAMS = [
  'named',
  'nsupdate',
  'dig',
  'tsig-keygen',
  'pebble',
  'pebble-challtestsrv',
  'openssl',
  'sshd',
];

export const ZONE = 'shop.example';
/** Of the client's machine: a name server and a CA that every host reaches over its public device. */
const SERVER = '192.0.2.10';
/** Longer than any test that uses it. */
const LONGEST_MS = 2_400_000;
const run = promisify(execFile);

type Files = Awaited<ReturnType<typeof selfSigned>>;

/** What a founder rents elsewhere: BIND as the name server of a zone, and pebble as the CA of Let's Encrypt. */
export class Outside {
  /** PEM of the certificate of pebble's own API. */
  readonly #apiCa: string;
  readonly #files: Files;
  readonly #tsig: string;
  readonly #directory: string;
  /** A program that outlives its test holds its whole process open. */
  readonly #over = new AbortController();
  #lab: Lab | undefined;

  private constructor(directory: string, apiCa: string, files: Files, tsig: string) {
    this.#directory = directory;
    this.#apiCa = apiCa;
    this.#files = files;
    this.#tsig = tsig;
  }

  /** @param directory which exists; all files go there */
  static async prepare(directory: string): Promise<Outside> {
    await mkdir(directory, { recursive: true });
    const { stdout: tsig } = await run('tsig-keygen', ['bornemisza']);
    const certificate = await selfSigned(directory, 'pebble', `IP:${SERVER}`);
    await writeFile(join(directory, 'zone.key'), tsig);
    await writeFile(
      join(directory, 'db'),
      `$TTL 300\n@ IN SOA ns root 1 3600 600 86400 60\n@ IN NS ns\nns IN A ${SERVER}\n` +
        'mail IN A 198.51.100.25\n@ IN MX 10 mail\n',
    );
    await writeFile(
      join(directory, 'named.conf'),
      `include "${directory}/zone.key";
options { directory "${directory}"; pid-file "${directory}/pid"; session-keyfile none;
  listen-on { ${SERVER}; }; listen-on-v6 { none; };
  recursion no; dnssec-validation no; allow-transfer { key bornemisza; }; };
controls { };
zone "${ZONE}" { type primary; file "db"; update-policy { grant bornemisza subdomain ${ZONE} A AAAA SRV TXT; }; };
`,
    );
    return new Outside(directory, await readFile(certificate.cert, 'utf8'), certificate, tsig);
  }

  /** What must stand in no log, argument or answer. */
  get keySecret(): string {
    const secret = /secret "([^"]{20,})"/.exec(this.#tsig)?.[1];
    if (secret === undefined) throw new Error('the key has no secret');
    return secret;
  }

  /** Starts the name server. Resolves when it listens. */
  async startNames(lab: Lab): Promise<void> {
    this.#lab = lab;
    this.#serve(['named', '-g', '-c', join(this.#directory, 'named.conf'), '-n', '1']);
    await this.#listens('the name server', 53);
  }

  /**
   * Starts the CA. Resolves when it listens.
   *
   * @param site the address at which it finds every name
   */
  async startCa(lab: Lab, site: string): Promise<void> {
    this.#lab = lab;
    const off = ['-http01', '', '-https01', '', '-tlsalpn01', '', '-management', `${SERVER}:8055`];
    const answers = ['-defaultIPv4', site, '-defaultIPv6', ''];
    this.#serve(['pebble-challtestsrv', '-dns01', `${SERVER}:8053`, ...answers, ...off]);
    await this.#startPebble('pebble', 14_000, `${SERVER}:8053`);
  }

  /** Starts a CA of its own that asks our name server, for challenge dns-01. @returns its directory */
  async startDnsCa(lab: Lab): Promise<string> {
    this.#lab = lab;
    await this.#startPebble('pebble-dns', 14_001, `${SERVER}:53`);
    return `https://${SERVER}:14001/dir`;
  }

  async #startPebble(name: string, port: number, names: string): Promise<void> {
    const { key, cert } = this.#files;
    const config = join(this.#directory, `${name}.json`);
    const pebble = {
      ...{ listenAddress: `${SERVER}:${port}`, managementListenAddress: `${SERVER}:${port + 1000}` },
      ...{ certificate: cert, privateKey: key, httpPort: 80, tlsPort: 443 },
    };
    await writeFile(config, JSON.stringify({ pebble }));
    const log = join(this.#directory, `${name}.log`);
    const line = `PEBBLE_VA_NOSLEEP=1 exec pebble -config ${config} -dnsserver ${names} >${log} 2>&1`;
    this.#serve(['sh', '-c', line]);
    await this.#listens(name, port);
  }

  /** Has an app node keep its records here; its daemon takes it at its next start. */
  async useNames(host: Host): Promise<void> {
    await give(host, '/etc/bornemisza/dns.key', '640', this.#tsig);
    const file = '/etc/bornemisza/app.toml';
    const own = `[network]\npublic_addresses = ["${host.publicAddress}"]\n`;
    const dns =
      `\n[dns]\nprovider = "rfc2136"\nzone = "${ZONE}"\nserver = "${SERVER}"\n` +
      'key_file = "/etc/bornemisza/dns.key"\n';
    const text = (await host.readFile(file)).replace('[network]\n', own);
    await host.must(['sh', '-c', `cat >${file}`], { stdin: text + dns });
  }

  /** Has an app node get its site's certificate here; its daemon takes it at its next start. */
  async useCa(host: Host, names: readonly string[]): Promise<void> {
    await give(host, '/etc/bornemisza/ca.pem', '644', this.#apiCa);
    const section =
      `\n[certificates]\nnames = ${JSON.stringify(names)}\nterms = "agreed"\n` +
      `directory = "https://${SERVER}:14000/dir"\nca_file = "/etc/bornemisza/ca.pem"\n`;
    await host.must(['sh', '-c', 'cat >>/etc/bornemisza/app.toml'], { stdin: section });
  }

  /** Starts a mail server that keeps what it takes. Resolves with its URL, when it listens. */
  async startMail(lab: Lab): Promise<string> {
    this.#lab = lab;
    const sink = join(import.meta.dirname, '../integration/smtp-sink.ts');
    this.#serve([process.execPath, sink, SERVER, '2525', join(this.#directory, 'mails')]);
    await this.#listens('the mail server', 2525);
    return `smtp://${SERVER}:2525`;
  }

  /** The secret of the newest link that was mailed to an address; undefined: none yet. */
  async mailedSecret(address: string): Promise<string | undefined> {
    const text = await readFile(join(this.#directory, 'mails'), 'utf8').catch(() => '');
    return secretIn(text, address);
  }

  /** What the zone's server answers, sorted. */
  async ask(name: string, type = 'A'): Promise<string> {
    const asked = ['dig', '+short', '+time=2', '+tries=1', `@${SERVER}`, name, type];
    const answer = await this.#client.exec(asked);
    return answer.stdout.trim().split('\n').sort().join(' ');
  }

  /** Hosts that the SRV records of a role name, sorted. */
  async members(role: Role): Promise<string[]> {
    const text = await this.ask(`_${role}._tcp.${ZONE}`, 'SRV');
    return [...text.matchAll(/internal\.([a-z0-9-]+)\./g)].map(([, host = '']) => host).sort();
  }

  /** PEM of what signs the certificates. */
  async rootCa(): Promise<string> {
    const { code, stdout, stderr } = await this.#client.exec([
      ...['curl', '-sS', '--fail', '--max-time', '5', '--cacert', this.#files.cert],
      `https://${SERVER}:15000/roots/0`,
    ]);
    if (code !== 0) throw new Error(`pebble gives no root: ${stderr}`);
    return stdout;
  }

  caLog(): Promise<string> {
    return readFile(join(this.#directory, 'pebble.log'), 'utf8');
  }

  close(): void {
    this.#over.abort();
  }

  get #client(): Lab['client'] {
    if (this.#lab === undefined) throw new Error('nothing was started outside');
    return this.#lab.client;
  }

  /** A daemon that finds nobody there pauses before it asks again. */
  async #listens(what: string, port: number): Promise<void> {
    const connect = ['bash', '-c', `: </dev/tcp/${SERVER}/${port}`];
    await until(async () => (await this.#client.exec(connect)).code === 0, {
      what: `${what} listens`,
      deadlineMs: 60_000,
      everyMs: 200,
    });
  }

  #serve(argv: readonly string[]): void {
    const running = this.#client.exec(argv, { timeoutMs: LONGEST_MS, signal: this.#over.signal });
    running.catch(() => undefined);
  }
}

/** @param mails as smtp-sink.ts writes them */
function secretIn(mails: string, address: string): string | undefined {
  const mail = mails
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { to: string; text: string })
    .findLast(({ to }) => to === address);
  const text = (mail?.text ?? '').replaceAll(/=\r?\n/g, '').replaceAll('=3D', '=');
  return /\/[a-z-]+#([\w.-]+)/.exec(text)?.[1];
}

async function give(host: Host, file: string, mode: string, text: string): Promise<void> {
  await host.must(['sh', '-c', `cat >${file}; chmod ${mode} ${file}; chgrp bornemisza ${file}`], {
    stdin: text,
  });
}
