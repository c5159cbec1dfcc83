import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { AppBed, type AppNode, type Browser } from '../integration/app-bed.ts';
import { run } from '../lab/process.ts';

/** What may happen between the app tier and its databases, and to its clocks. */
t.setTimeout(2_300_000);
const PASSWORD = 'four green turtles';
const FRESH = 'seven purple elephants';

type Verdict = 'pass' | 'cut' | number;

/** Stands between a node and CouchDB, and decides about each answer to a write, which CouchDB has done by then. */
class Between {
  judge: (write: number) => Verdict = () => 'pass';
  writes = 0;
  readonly #server: Server;

  constructor(couchPort: number) {
    this.#server = createServer((asked, answer) => {
      const { method = 'GET', url: path, headers } = asked;
      const passed = request({ host: '127.0.0.1', port: couchPort, method, path, headers });
      passed.on('response', (from) => {
        const writes = method !== 'GET' && method !== 'HEAD' && !path?.startsWith('/_session');
        const verdict = writes ? this.judge((this.writes += 1)) : 'pass';
        if (verdict === 'cut') {
          from.resume();
          asked.socket.destroy();
          return;
        }
        const status = from.statusCode ?? 502;
        // Only what was written can be written to too few.
        const stays = verdict === 'pass' || (verdict === 202 && status !== 200 && status !== 201);
        answer.writeHead(stays ? status : verdict, from.headers);
        from.pipe(answer);
      });
      passed.on('error', () => asked.socket.destroy());
      asked.socket.on('close', () => passed.destroy());
      asked.pipe(passed);
    });
  }

  async listen(): Promise<number> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

const bed = await AppBed.start();
const between = new Between(bed.couchPort);
t.teardown(async () => {
  await bed.close();
  between.close();
});
const well = await bed.addNode();
const hit = await bed.addNode('', undefined, { databasePort: await between.listen() });

/** A person of whom nobody else is. */
let people = 0;
const nextPerson = (): string => `person${(people += 1)}@example.org`;

async function linkFor(email: string, path: string): Promise<string> {
  const from = bed.mails.length;
  const { status } = await bed.browser(well).ask('POST', path, { email });
  if (status !== 202) throw new Error(`${path} answers ${status}`);
  const { token } = await bed.mailTo(email, from);
  if (token === undefined) throw new Error(`the mail to ${email} has no link`);
  return token;
}

async function signedIn(email: string, password = PASSWORD): Promise<Browser> {
  const browser = bed.browser(well);
  const { status, body } = await browser.ask('POST', '/api/session', { email, password });
  if (status !== 200) throw new Error(`${email} cannot sign in: ${status} ${JSON.stringify(body)}`);
  return browser;
}

interface Act {
  readonly what: string;
  /** @returns what a person does, at any node */
  readonly prepare: (email: string) => Promise<(at: Browser) => Promise<{ status: number }>>;
  /** What the second try may answer: the first one may have done it all. */
  readonly again: readonly number[];
  /** Throws unless it is done. */
  readonly check: (email: string) => Promise<void>;
}

async function hasData(browser: Browser): Promise<void> {
  await bed.until(async () => (await browser.ask('GET', '/api/data')).status === 200, 'the own database');
  const { status } = await browser.ask('PUT', `/api/data/note-${Math.random()}`, { text: 'buy milk' });
  if (status !== 201) throw new Error(`a note answers ${status}`);
}

const ACTS: readonly Act[] = [
  {
    what: 'a registration',
    again: [201],
    async prepare(email) {
      const token = await linkFor(email, '/api/registrations');
      return (at) => at.ask('POST', '/api/accounts', { token, password: PASSWORD });
    },
    check: async (email) => hasData(await signedIn(email)),
  },
  {
    what: 'a new password by link',
    // The link is used up where the first try had written it.
    again: [204, 410],
    async prepare(email) {
      await bed.register(bed.browser(well), email, PASSWORD);
      await bed.forgetMails(email);
      const token = await linkFor(email, '/api/password-resets');
      return (at) => at.ask('PUT', '/api/password', { token, password: FRESH });
    },
    check: async (email) => hasData(await signedIn(email, FRESH)),
  },
  {
    what: 'the end of an account',
    again: [204, 401],
    async prepare(email) {
      const browser = bed.browser(well);
      await bed.register(browser, email, PASSWORD);
      await hasData(browser);
      return (at) => at.ask('POST', '/api/me/deletion', { password: PASSWORD }, { cookie: browser.cookie });
    },
    async check(email) {
      const { status } = await bed.browser(well).ask('POST', '/api/session', { email, password: PASSWORD });
      if (status !== 401) throw new Error(`${email} is still known: ${status}`);
      await bed.forgetMails(email).catch(() => undefined);
      await bed.register(bed.browser(well), email, FRESH);
      await hasData(await signedIn(email, FRESH));
    },
  },
];

/** Lets an act meet a fault at each of its writes in turn, then tries it again at a node that is well. */
async function atEachWrite(
  t: Test,
  { what, prepare, again, check }: Act,
  fault: (node: AppNode) => Verdict,
): Promise<number> {
  for (let at = 1; ; at += 1) {
    const email = nextPerson();
    const act = await prepare(email);
    between.writes = 0;
    between.judge = (write) => (write === at ? fault(hit) : 'pass');
    const first = await act(bed.browser(hit)).catch(() => ({ status: 0 }));
    const met = between.writes >= at;
    between.judge = () => 'pass';
    if (!met) {
      await check(email);
      return at - 1;
    }
    await hit.end('SIGKILL');
    await hit.start();
    if (first.status < 200 || first.status > 299) {
      const { status } = await act(bed.browser(well));
      t.ok(again.includes(status), `${what}, write ${at}: ${first.status}, and ${status} the second time`);
    }
    await check(email);
    t.pass(`${what}: whole after a fault at write ${at}`);
  }
}

for (const act of ACTS) {
  t.test(`${act.what} is whole, or can be done again, after SIGKILL at any write`, async (t) => {
    const writes = await atEachWrite(t, act, (node) => {
      void node.end('SIGKILL');
      return 'cut';
    });
    t.ok(writes > 0, `${writes} writes`);
  });

  t.test(`${act.what} promises nothing that too few databases have`, async (t) => {
    const email = nextPerson();
    const promise = await act.prepare(email);
    between.judge = () => 202;
    const { status } = await promise(bed.browser(hit));
    between.judge = () => 'pass';
    t.equal(status, 503);
    t.ok([...act.again].includes((await promise(bed.browser(well))).status));
    await act.check(email);
  });

  t.test(`${act.what} fails for now where the databases answer 500, or not at all`, async (t) => {
    for (const verdict of [500, 503, 'cut'] as const) {
      const email = nextPerson();
      const promise = await act.prepare(email);
      between.judge = () => verdict;
      const { status } = await promise(bed.browser(hit));
      between.judge = () => 'pass';
      t.equal(status, 503, String(verdict));
      t.ok([...act.again].includes((await promise(bed.browser(hit))).status), 'and works when they are back');
      await act.check(email);
    }
  });
}

t.test('who asks for a link gets 503 or the mail, and after 503 another try sends it at once', async (t) => {
  for (const path of ['/api/registrations', '/api/password-resets'])
    for (const verdict of [202, 500, 503, 'cut'] as const) {
      const email = nextPerson();
      const from = bed.mails.length;
      between.judge = (write) => (write === 1 ? verdict : 'pass');
      between.writes = 0;
      const first = await bed.browser(hit).ask('POST', path, { email });
      between.judge = () => 'pass';
      t.equal(first.status, 503, `${path} ${verdict}`);
      t.equal((await bed.browser(well).ask('POST', path, { email })).status, 202);
      await bed.mailTo(email, from);
      const again = await bed.browser(hit).ask('POST', path, { email });
      t.equal(again.status, 202);
      const mails = bed.mails.slice(from).filter(({ to }) => to === email);
      t.equal(mails.length, 1, `${path} ${verdict}: one mail a minute still`);
    }
});

t.test('what a person writes has the status that CouchDB gave: 202 is no 201', async (t) => {
  const email = nextPerson();
  await bed.register(bed.browser(well), email, PASSWORD);
  const { cookie } = await signedIn(email);
  const browser = bed.browser(hit);
  await bed.until(
    async () => (await browser.ask('GET', '/api/data', undefined, { cookie })).status === 200,
    'the own database',
  );
  between.judge = () => 202;
  t.equal((await browser.ask('PUT', '/api/data/note', { text: 'x' }, { cookie })).status, 202);
  between.judge = () => 'pass';
});

t.test('a full quota refuses what needs room, and nothing else', async (t) => {
  const small = await bed.addNode('quota_mb = 1');
  const browser = bed.browser(small);
  await bed.register(browser, nextPerson(), PASSWORD);
  await hasData(browser);
  // CouchDB compresses what it stores.
  const text = randomBytes(150 * 1024).toString('hex');
  const revisions: string[] = [];
  for (let note = 0; note < 6; note += 1) {
    const { status, body } = await browser.ask('PUT', `/api/data/large-${note}`, { text: text + note });
    t.equal(status, 201, 'sizes are read each 30 s');
    revisions.push(String(body['rev']));
  }
  await bed.until(async () => {
    await pause(1000);
    const { status } = await browser.ask('PUT', `/api/data/one-${Math.random()}`, { text: 'more' });
    if (status !== 201 && status !== 413) throw new Error(`a note answers ${status}`);
    return status === 413;
  }, 'the quota');
  const full = await browser.ask('POST', '/api/data/_bulk_docs', { docs: [{ _id: 'two', text: 'more' }] });
  t.equal(full.status, 413);
  t.match(full.body, { type: '/problems/quota-exceeded' });
  t.equal((await browser.ask('GET', '/api/data/large-0')).status, 200, 'it can be read');
  const rev = revisions[0] ?? '';
  t.equal((await browser.ask('DELETE', `/api/data/large-0?rev=${rev}`)).status, 200, 'and made smaller');
  t.equal((await browser.ask('GET', '/api/me')).status, 200);
});

t.test('nodes whose clocks are an hour off know each other’s sessions and links', async (t) => {
  const preload = (await run(['faketime', '-m', '-f', '+0', 'printenv', 'LD_PRELOAD'])).stdout.trim();
  const off = (by: string): Promise<AppNode> =>
    bed.addNode('', undefined, {
      environment: { LD_PRELOAD: preload, FAKETIME: by, FAKETIME_DONT_FAKE_MONOTONIC: '1' },
    });
  const nodes = { well, ahead: await off('+1h'), behind: await off('-1h') };
  for (const [name, node] of Object.entries(nodes)) {
    const email = nextPerson();
    const from = bed.mails.length;
    t.equal((await bed.browser(node).ask('POST', '/api/registrations', { email })).status, 202);
    const { token } = await bed.mailTo(email, from);
    const browser = bed.browser(well);
    t.equal((await browser.ask('POST', '/api/accounts', { token, password: PASSWORD })).status, 201, name);
    const signed = bed.browser(node);
    t.equal((await signed.ask('POST', '/api/session', { email, password: PASSWORD })).status, 200, name);
    for (const [other, at] of Object.entries(nodes)) {
      // Two hours are no clock that is an hour off.
      if (new Set([name, other, 'well']).size === 3) continue;
      const { status } = await bed.browser(at).ask('GET', '/api/me', undefined, { cookie: signed.cookie });
      t.equal(status, 200, `signed in at ${name}, asks at ${other}`);
    }
  }
});
