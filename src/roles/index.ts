import type { Role } from '../daemon/membership/types.ts';

/** The programs that each role runs, each with exactly one writer. BIRD and the public device only with role app, CouchDB only with role db. */
export const PROGRAMS: Readonly<Record<Role, readonly ('haproxy' | 'bird' | 'layer2' | 'couchdb')[]>> = {
  app: ['haproxy', 'bird', 'layer2'],
  db: ['haproxy', 'couchdb'],
};
