import type { MiddlewareHandler } from 'hono';
import { Problem } from './problems.ts';

const SAFE = new Set(['GET', 'HEAD', 'OPTIONS']);
/** Larger than a batch of PouchDB's replication, far below what fills a node's memory. */
export const MAX_BODY_BYTES = 1024 * 1024;

/**
 * Refuses requests that another site makes a browser send. A browser names its origin in each unsafe request; a client
 * that names none is no browser, and has no cookie that another site could use.
 */
export function sameOriginOnly(publicUrl: URL): MiddlewareHandler {
  return async (c, next) => {
    if (!SAFE.has(c.req.method)) {
      const origin = c.req.header('origin');
      const site = c.req.header('sec-fetch-site');
      if (origin !== undefined && origin !== publicUrl.origin) throw new Problem('foreign-origin');
      if (site !== undefined && site !== 'same-origin' && site !== 'none')
        throw new Problem('foreign-origin');
      const type = c.req.header('content-type') ?? '';
      const hasBody = c.req.method !== 'DELETE' || c.req.header('content-length') !== undefined;
      if (hasBody && !/^application\/json\s*(;|$)/i.test(type) && c.req.header('content-length') !== '0')
        throw new Problem('not-json');
    }
    await next();
  };
}
