import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Cluster, type Instance } from '../lab/cluster.ts';
import type { Host, Role } from '../lab/index.ts';
import { Outside, OUTSIDE_PROGRAMS, ZONE } from '../lab/outside.ts';
import { askAsPage } from '../lab/page-request.ts';
import { until } from '../support/until.ts';
import { installed } from './loopback-world.ts';
import type { Around } from './world.ts';

/** What the lab has around the cluster: a name server, a CA, a mail server, strangers, and a person with an account. */

/** Of one command on a machine that others use too. */
const PATIENCE_MS = 60_000;
/** Longer than a removal takes. */
const TALK_MS = 120_000;

export async function outsideOf(
  directory: string,
  progress: (text: string) => void,
): Promise<Outside | undefined> {
  const found = await Promise.all(OUTSIDE_PROGRAMS.map(installed));
  const missing = OUTSIDE_PROGRAMS.filter((_, at) => found[at] === false);
  if (missing.length === 0) return Outside.prepare(directory);
  progress(`not here: ${missing.join(', ')}; so nothing is shown of DNS, certificates and the firewall`);
  return undefined;
}

/** The name server and the CA run before the first daemon does. */
export function configuring(outside: Outside) {
  let started: Promise<void> | undefined;
  const start = async (lab: Cluster['lab']): Promise<void> => {
    await outside.startNames(lab);
    await outside.startCa(lab, lab.floatingAddresses[0] ?? '');
  };
  return async (host: Host, role: Role, lab: Cluster['lab']): Promise<void> => {
    if (role !== 'app') return;
    await (started ??= start(lab));
    await outside.useNames(host);
    await outside.useCa(host, [ZONE]);
  };
}

/** As a founder does it: the site is the page of the app tier from now on. */
export async function setUpAppTier(
  cluster: Cluster,
  outside: Outside,
  progress: (text: string) => void,
): Promise<void> {
  const mail = await outside.startMail(cluster.lab);
  const content =
    `public_url = "${siteOf(cluster)}"\nsite_name = "Notes"\n` +
    `[mail]\nfrom = "notes@${ZONE}"\nsmtp_url = "${mail}"\nsmtp_tls = "off"\n`;
  for (const { host } of cluster.instancesOf('app')) {
    progress(`bornemisza accounts setup on ${host.name}`);
    await host.must(['rm', '/etc/bornemisza/services.d/site.toml']);
    if (!cluster.lab.packaged) await giveExamples(host);
    await host.writeFile('/root/accounts.toml', { content, mode: 0o600 });
    await host.must(['bornemisza', 'accounts', 'setup', '--from', '/root/accounts.toml'], {
      timeoutMs: PATIENCE_MS,
    });
  }
}

/** As the package brings them. */
async function giveExamples(host: Host): Promise<void> {
  for (const name of ['web.toml.example', 'api.toml.example']) {
    const content = await readFile(join(import.meta.dirname, '../../rpm/examples', name), 'utf8');
    await host.writeFile(`/etc/bornemisza/services.d/${name}`, { content, mode: 0o640, group: 'bornemisza' });
  }
}

const siteOf = ({ lab }: Cluster): string => `https://${lab.floatingAddresses[0]}`;

/** One person, who keeps a password and no cookie. */
class Person {
  readonly #cluster: Cluster;
  readonly #outside: Outside;
  readonly #email = 'anna@example.org';
  readonly #password = 'four green turtles';

  constructor(cluster: Cluster, outside: Outside) {
    this.#cluster = cluster;
    this.#outside = outside;
  }

  async register(host: string): Promise<void> {
    await this.#ask(host, 'POST', '/api/registrations', { body: { email: this.#email }, wanted: [202] });
    const token = await until(() => this.#outside.mailedSecret(this.#email), {
      what: 'the mail',
      deadlineMs: PATIENCE_MS,
      everyMs: 200,
    });
    const body = { token, password: this.#password };
    const { cookie } = await this.#ask(host, 'POST', '/api/accounts', { body, wanted: [201] });
    // CouchDB makes the database of a person a moment after the account.
    await until(
      async () => {
        await this.#ask(host, 'PUT', '/api/data/note', {
          cookie,
          body: { text: 'hello' },
          wanted: [201, 202],
        });
        return true;
      },
      { what: 'the first note', deadlineMs: PATIENCE_MS, everyMs: 500 },
    );
  }

  async signIn(host: string): Promise<string> {
    const body = { email: this.#email, password: this.#password };
    return (await this.#ask(host, 'POST', '/api/session', { body, wanted: [200] })).cookie;
  }

  async readNote(host: string, cookie: string): Promise<string> {
    const { status, text } = await this.#ask(host, 'GET', '/api/data/note', { cookie, wanted: [200] });
    return /"text":"hello"/.test(text) ? String(status) : text;
  }

  /** @throws Error with the answer, where its status is not one of the wanted ones */
  async #ask(
    host: string,
    method: string,
    path: string,
    { cookie = '', body, wanted }: { cookie?: string; body?: unknown; wanted: readonly number[] },
  ): Promise<{ readonly status: number; readonly text: string; readonly cookie: string }> {
    const { lab } = this.#cluster;
    const answer = await askAsPage(lab.client, {
      site: siteOf(this.#cluster),
      at: `https://${lab.host(host).publicAddress}`,
      ...{ method, path, cookie, body },
      timeoutMs: 20_000,
    });
    const { status, text } = answer;
    if (!wanted.includes(status)) throw new Error(`${method} ${path}: ${status} ${text.slice(0, 200)}`);
    return answer;
  }
}

/** Of a program on every app node that nobody outside is to reach. */
const OWN_PORT = 9999;
/** Of HAProxy's statistics, which members reach. */
const MEMBER_PORT = 8404;

const answersIn = (text: string): number => text.split('HTTP/1.1 200').length - 1;

export function aroundOf(cluster: Cluster, outside: Outside): Around {
  const { lab } = cluster;
  const person = new Person(cluster, outside);
  let ca: Promise<string> | undefined;
  let talk: Promise<unknown> | undefined;
  const listen = ({ host }: Instance): Promise<string> =>
    host.must(['systemd-run', '--quiet', 'socat', `TCP-LISTEN:${OWN_PORT},fork,reuseaddr`, 'EXEC:cat']);
  const isOpen = async (name: string): Promise<boolean> => {
    const target = `TCP:${lab.host(name).publicAddress}:${OWN_PORT},connect-timeout=1`;
    return (await lab.client.exec(['socat', '-u', '/dev/null', target], { timeoutMs: 15_000 })).code === 0;
  };
  return {
    records: async () => ({
      site: await outside.ask(ZONE),
      app: await outside.members('app'),
      db: await outside.members('db'),
    }),
    visitTrusting: async (edge) => {
      ca ??= outside.rootCa().catch((error: unknown) => {
        ca = undefined;
        throw error;
      });
      const url = `https://${lab.host(edge).publicAddress}/`;
      const { status } = await lab.client.request({ url, ca: await ca, servername: ZONE, timeoutMs: 3000 });
      return String(status);
    },
    register: (host) => person.register(host),
    signIn: (host) => person.signIn(host),
    readNote: (host, cookie) => person.readNote(host, cookie),
    isOpen,
    closePorts: async () => {
      const apps = cluster.instancesOf('app');
      await Promise.all(apps.map(listen));
      for (const { host } of apps)
        await until(() => isOpen(host.name), {
          what: `${host.name} is open before`,
          deadlineMs: PATIENCE_MS,
        });
      await Promise.all(
        cluster.instances.map(async ({ host }) => {
          // As on a machine whose sshd runs: its ports stay open.
          await host.must(['sh', '-c', 'mkdir -p /run/sshd && ssh-keygen -A']);
          await host.must(['bornemisza', 'firewall', 'on'], { timeoutMs: PATIENCE_MS });
          await host.must(['bornemisza', 'firewall', 'confirm'], { timeoutMs: PATIENCE_MS });
        }),
      );
    },
    removeTalking: async (name) => {
      const [authority] = cluster.instances;
      if (authority === undefined) throw new Error('no node is left');
      const { host } = cluster.instance(name);
      // One connection with a request every 0.2 s. HAProxy ends those of a removed node at its door alone.
      const loop = `exec 3<>/dev/tcp/${authority.host.privateAddress}/${MEMBER_PORT}; cat <&3 >/run/talked &
        while printf 'HEAD / HTTP/1.1\\r\\nHost: demo\\r\\n\\r\\n' >&3; do sleep 0.2; done 2>/dev/null; exit 0`;
      const ended = host.exec(['bash', '-c', loop], { timeoutMs: TALK_MS });
      talk = ended.catch(() => undefined).finally(() => (talk = undefined));
      const begun = until(async () => answersIn(await host.readFile('/run/talked').catch(() => '')) > 3, {
        what: `${name} is connected`,
        deadlineMs: PATIENCE_MS,
      });
      await Promise.race([
        begun,
        ended.then(({ stderr }) => Promise.reject(new Error(`no connection: ${stderr}`))),
      ]);
      await cluster.command(authority, ['remove', `${name}/app`, '--force']);
      cluster.forget(`${name}/app`);
    },
    talks: async () => talk !== undefined,
  };
}
