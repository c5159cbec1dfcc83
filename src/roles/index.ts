import type { Role } from '../daemon/membership/types.ts';

/** The programs that each role runs, each with exactly one writer. BIRD only with role app, CouchDB only with role db. */
export const PROGRAMS: Readonly<Record<Role, readonly ('haproxy' | 'bird' | 'couchdb')[]>> = {
  app: ['haproxy', 'bird'],
  db: ['haproxy', 'couchdb'],
};
