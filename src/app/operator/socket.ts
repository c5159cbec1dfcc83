import { chmod, rm } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { getRequestListener } from '@hono/node-server';
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import * as z from 'zod';
import type { Services } from '../http/services.ts';
import { type OperatorOrders, refusalOf } from './orders.ts';

/** Far above the length of an address and a position in the list. */
const MAX_BODY_BYTES = 4096;
/** Enough for the daemon and the few terminals of a founder. */
const MAX_CONNECTIONS = 16;

const List = z.strictObject({ after: z.string().max(200).optional() });
/** Longer than any address, so that the refusal can say what is wrong. */
const About = z.strictObject({ email: z.string().max(1024) });
const ABOUT = ['show', 'disable', 'enable', 'delete'] as const;

/**
 * A socket for the daemon of this node, separate from the port to which the edge sends everybody. Group and mode of the
 * socket decide who may connect.
 *
 * If it cannot be opened, only the operator's commands fail: people are served.
 */
export async function openOperatorSocket(
  path: string,
  orders: OperatorOrders,
  log: Services['log'],
): Promise<{ close(): void }> {
  const answer = getRequestListener(routes(orders).fetch);
  const server = createServer((request, response) => void answer(request, response));
  server.maxConnections = MAX_CONNECTIONS;
  try {
    // A killed process left it behind: systemd runs one process of ours at a time.
    await rm(path, { force: true });
    server.listen(path);
    await once(server, 'listening');
    await chmod(path, 0o660);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    log(`cannot listen on ${path}: ${code ?? message}; \`bornemisza accounts\` does not work here`, {
      code: 'accounts-socket',
      next: 'systemctl restart bornemisza-app',
    });
  }
  return {
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

function routes(orders: OperatorOrders): Hono {
  const app = new Hono();
  app.use(bodyLimit({ maxSize: MAX_BODY_BYTES }));
  app.post('/accounts/list', async (c) => c.json(await orders.list(List.parse(await c.req.json()).after)));
  for (const order of ABOUT)
    app.post(`/accounts/${order}`, async (c) =>
      c.json(await orders[order](About.parse(await c.req.json()).email)),
    );
  app.onError((error, c) => c.json({ error: refusalOf(error) }, 409));
  return app;
}
