import { OpenAPIHono } from '@hono/zod-openapi';
import { bodyLimit } from 'hono/body-limit';
import { databaseOf } from '../accounts/names.ts';
import { languageOf, textIn } from '../languages.ts';
import { CouchError } from '../store/couch.ts';
import { addAccountRoutes } from './accounts.ts';
import { addDataRoutes } from './data.ts';
import { MAX_BODY_BYTES, sameOriginOnly } from './guard.ts';
import { addMeRoutes } from './me.ts';
import { PROBLEMS, Problem, problemAnswer, type ProblemCode, problemOf } from './problems.ts';
import type { Services } from './services.ts';

/** The whole API as one function of a request. */
export function createApi(services: Services): OpenAPIHono {
  const app = new OpenAPIHono({
    defaultHook: (result) => {
      if (result.success) return undefined;
      const errors = result.error.issues.map(({ path, message }) => ({
        pointer: `/${path.map(String).join('/')}`,
        detail: message,
      }));
      throw new Problem('invalid-request', { errors });
    },
  });
  app.onError((error, c) => {
    const problem = isBadJson(error)
      ? new Problem('invalid-request', { detail: 'The body is not valid JSON.' })
      : problemOf(error);
    if (problem.code === 'internal') services.log(`a request failed: ${error.stack ?? error.message}`);
    else if (error instanceof CouchError && error.code === 'databases-refuse')
      services.log(`a request failed: ${error.message}`);
    return problemAnswer(problem, languageOf(c));
  });
  app.notFound((c) => problemAnswer(new Problem('not-found'), languageOf(c)));
  app.use('/api/*', async (c, next) => {
    if (Number(c.req.header('content-length') ?? 0) > MAX_BODY_BYTES) throw new Problem('too-large');
    await next();
    c.header('x-content-type-options', 'nosniff');
    if (!c.res.headers.has('cache-control')) c.header('cache-control', 'no-store');
  });
  app.use('/api/*', sameOriginOnly(new URL(services.config.public_url)));
  const limited = bodyLimit({
    maxSize: MAX_BODY_BYTES,
    onError: () => {
      throw new Problem('too-large');
    },
  });
  // Only a body that does not say its length has to be read first: for any other it would be copied for nothing.
  app.use('/api/*', async (c, next) =>
    c.req.header('transfer-encoding') === undefined ? next() : limited(c, next),
  );
  addHealthRoutes(app, services);
  addAccountRoutes(app, services);
  addMeRoutes(app, services);
  addDataRoutes(app, services);
  app.doc31('/api/openapi.json', {
    openapi: '3.1.0',
    info: { title: `${services.config.site_name}: accounts, sessions, data`, version: '1' },
    servers: [{ url: new URL(services.config.public_url).origin }],
  });
  return app;
}

function addHealthRoutes(app: OpenAPIHono, services: Services): void {
  const well = { status: 'ok' };
  app.get('/healthz', (c) => (services.ending() ? c.json({ status: 'ending' }, 503) : c.json(well)));
  app.get('/api/health', async (c) => {
    if (services.ending()) return c.json({ status: 'ending' }, 503);
    // Its own database, which couch_peruser makes some time after the account: `/_session` answers before.
    const path = `/${databaseOf(services.app.name)}`;
    const { status } = await services.couch.ask({ method: 'GET', path, as: services.app });
    if (status !== 200) throw new Problem('databases-unreachable');
    return c.json(well);
  });
  app.get('/problems/:code', (c) => {
    const code = c.req.param('code');
    if (!Object.hasOwn(PROBLEMS, code)) throw new Problem('not-found');
    const language = languageOf(c);
    return c.text(`${textIn(language, PROBLEMS[code as ProblemCode][1])}\n`);
  });
}

/** The library reports a body that cannot be parsed in this way. */
function isBadJson(error: Error): boolean {
  return 'status' in error && (error as { status: unknown }).status === 400;
}
