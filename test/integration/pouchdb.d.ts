/** What the tests use of PouchDB; its packages have no types of their own. */
declare module 'pouchdb-core' {
  export interface Sync {
    on(event: 'error' | 'denied', listener: (error: unknown) => void): this;
    cancel(): void;
  }
  export interface Replicated {
    readonly docs_written: number;
    readonly doc_write_failures: number;
  }
  export interface Database {
    get(id: string): Promise<{ _rev: string; n?: number }>;
    put(doc: object): Promise<{ rev: string }>;
    bulkDocs(docs: readonly object[]): Promise<unknown>;
    allDocs(): Promise<{ rows: readonly { id: string }[] }>;
    sync(other: Database, options: object): Sync;
    close(): Promise<void>;
    readonly replicate: {
      to(other: Database): Promise<Replicated>;
      from(other: Database): Promise<Replicated>;
    };
  }
  interface Constructor {
    plugin(plugin: unknown): Constructor;
    new (name: string, options: object): Database;
  }
  const PouchDB: Constructor;
  export default PouchDB;
}
declare module 'pouchdb-adapter-http';
declare module 'pouchdb-adapter-memory';
declare module 'pouchdb-replication';
