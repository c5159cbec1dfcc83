import { chmod, rm } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { getRequestListener } from '@hono/node-server';
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import * as z from 'zod';
import type { Services } from '../http/services.ts';
import { type OperatorOrders, refusalOf } from './orders.ts';

/** An address and a place in the list are far below. */
const MAX_BODY_BYTES = 4096;
/** The daemon asks one thing after the other; a founder has a few terminals. */
const MAX_CONNECTIONS = 16;

const List = z.strictObject({ after: z.string().max(200).optional() });
/** Longer than any address, so that the refusal can say what is wrong. */
const About = z.strictObject({ email: z.string().max(1024) });
const ABOUT = ['show', 'disable', 'enable', 'delete'] as const;

/**
 * A socket for the daemon of this node, apart from the port that the edge sends everybody to. Who may connect is the
 * business of the socket's group and mode.
 *
 * One that cannot be opened costs the operator's commands alone: people are served.
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
    // What is there was left by a process that was killed: systemd keeps one of us at a time.
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
