import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import { type AppKey, KeyRing } from './accounts/keys.ts';
import { type AppConfig, AppConfigError, type AppSecrets } from './config.ts';
import { createApi } from './http/app.ts';
import { Window } from './http/limits.ts';
import { Quota } from './http/quota.ts';
import type { AccountMail, Services } from './http/services.ts';
import { OperatorOrders } from './operator/orders.ts';
import { openOperatorSocket } from './operator/socket.ts';
import { servePages } from './pages.ts';
import { Accounts } from './store/accounts.ts';
import { Couch, type Credentials } from './store/couch.ts';
import { PasswordHashes } from './store/hashing.ts';

/** Health reports "ending" for longer than HAProxy needs to see it twice; requests are still answered. */
const DRAIN_MS = 2500;
/** Connections that are still open then are cut: a feed asks again at another node. */
const LAST_MS = 3000;
/** HAProxy keeps connections open, and each feed needs one. */
const MAX_CONNECTIONS = 4096;
const FAILURES = { most: 5, windowMs: 15 * 60_000 };
const STRANGERS = { most: 30, windowMs: 3600_000 };

export interface AppServer {
  readonly port: number;
  /** The cluster made new keys: they are used from the next request on. */
  renew(secrets: AppSecrets): void;
  /** Health fails first, then the port closes, then open connections are cut. */
  close(): Promise<void>;
}

interface AppServerDependencies {
  readonly mail: AccountMail;
  readonly nowMs: () => number;
  readonly log: Services['log'];
  /** How long health reports "ending" before the port closes. */
  readonly drainMs?: number;
}

/** API and page of one node. @throws AppConfigError */
export async function startAppServer(
  config: AppConfig,
  secrets: AppSecrets,
  { mail, nowMs, log, drainMs = DRAIN_MS }: AppServerDependencies,
): Promise<AppServer> {
  const keys = new KeyRing(ringOf(secrets));
  const couch = new Couch(config.database_url);
  const app = loginOf(secrets);
  const accounts = new Accounts({ couch, keys, app, nowMs });
  const quota = new Quota(config.quota_mb, { couch, accounts, nowMs });
  let ending = false;
  const api = createApi({
    config,
    keys,
    couch,
    app,
    accounts,
    hashes: new PasswordHashes(keys),
    quota,
    mail,
    limits: {
      failures: new Window(FAILURES.most, FAILURES.windowMs),
      strangers: new Window(STRANGERS.most, STRANGERS.windowMs),
    },
    nowMs,
    log,
    ending: () => ending,
  });
  const pages = await servePages(config.web_root);
  const answer = getRequestListener(api.fetch);
  const server = createServer((request, response) => {
    if (/^\/(api\/|healthz$|problems\/)/.test(request.url ?? '')) void answer(request, response);
    else pages(request, response);
  });
  server.maxConnections = MAX_CONNECTIONS;
  await listen(server, config.port);
  const operator = await openOperatorSocket(
    config.operator_socket,
    new OperatorOrders({ accounts, quota }),
    log,
  );
  return {
    port: (server.address() as AddressInfo).port,
    renew(newer) {
      keys.replace(ringOf(newer));
      Object.assign(app, loginOf(newer));
    },
    async close() {
      ending = true;
      operator.close();
      await new Promise((resolve) => setTimeout(resolve, drainMs));
      const closed = once(server, 'close');
      server.close();
      server.closeIdleConnections();
      const last = setTimeout(() => server.closeAllConnections(), LAST_MS);
      await closed;
      clearTimeout(last);
      couch.close();
    },
  };
}

function ringOf({ keys }: AppSecrets): AppKey[] {
  return keys.map(({ id, secret }) => ({ id, secret: Buffer.from(secret, 'hex') }));
}

function loginOf({ database }: AppSecrets): Credentials {
  return { name: database.user, password: database.password };
}

async function listen(server: Server, port: number): Promise<void> {
  server.listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const next = `see who has it: ss -ltnp 'sport = :${port}'; or set another port in accounts.toml`;
    throw new AppConfigError(
      'accounts-port',
      `cannot listen on 127.0.0.1:${port}: ${code ?? message}`,
      next,
      error,
    );
  }
}
