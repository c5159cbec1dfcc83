import { matchesSelector } from 'pouchdb-selector-core';
import type { Catalogue } from '../cluster/catalogue.ts';
import { type Distribution, Refusal } from '../dist/distribution.ts';
import type { Settings } from '../start/settings.ts';
import type { Change, Copy, CopyInfo, Edit, EditResult, Lookup, StoredDoc } from '../store/copy.ts';
import { compareIds } from '../store/copy.ts';
import type { Files } from '../store/files.ts';
import type { Body } from '../store/revision.ts';

/** A window of `_all_docs`; ids compare as bytes. */
export type Window = {
  start?: string;
  end?: string;
  inclusiveEnd?: boolean;
  descending?: boolean;
  limit?: number;
  keys?: string[];
  docs?: boolean;
  conflicts?: boolean;
};
export type Row = { id: string; rev: string; deleted?: true; doc?: Body };
export type Rows = { total: number; rows: Row[] };
export type ChangesAsk = {
  since: number;
  limit: number;
  docs?: boolean;
  allLeaves?: boolean;
  conflicts?: boolean;
  waitMs?: number;
};
export type ChangesAnswer = { changes: Change[]; last: number; uuid: string; pending: number };

/** A copy whose file was only just opened answers a stream later than one that is warm. */
const coldMs = 200;
const coldDelayMs = 60;

type Parts = { distribution: Distribution; files: Files; catalogue: Catalogue; settings: Settings };

/** What a coordinator on any node may ask of the copies on this one (fabric_rpc). */
export function serveFabric({ distribution, files, catalogue, settings }: Parts): void {
  const copyOf = async (name: string): Promise<Copy> => {
    const copy = files.open(name);
    if (copy !== undefined) return copy;
    if (!catalogue.holds(name)) throw new Refusal('not_found', 'no_db_file');
    return (await files.create(name)).copy;
  };
  /** Reads and writes of documents are held back in maintenance mode; metadata and internal replication are not. */
  const interactive = (): void => {
    if (settings.get('couchdb', 'maintenance_mode') === 'true') throw new Refusal('maintenance_mode');
  };
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- what the coordinator sends with this op
  const serve = <A extends { name: string }, R>(
    op: string,
    run: (copy: Copy, args: A) => R | Promise<R>,
    held = true,
  ) => {
    distribution.handle(`fabric.${op}`, async (args: A) => {
      if (held) interactive();
      const copy = await copyOf(args.name);
      const result = await run(copy, args);
      await files.flush(args.name);
      return result;
    });
  };

  serve<{ name: string }, { security: Body; revsLimit: number }>('open', (copy) => ({
    security: copy.security,
    revsLimit: copy.revsLimit,
  }));
  serve<{ name: string }, null>('ready', async (copy) => {
    if (Date.now() - copy.openedAt < coldMs) await new Promise((resolve) => setTimeout(resolve, coldDelayMs));
    return null;
  });
  serve<{ name: string; edits: Edit[] }, EditResult[]>('edit', (copy, { edits }) =>
    edits.map((edit) => copy.edit(edit)),
  );
  serve<{ name: string; docs: StoredDoc[] }, null>('put', (copy, { docs }) => {
    for (const doc of docs) copy.put(doc);
    return null;
  });
  serve<{ name: string; id: string; rev?: string }, Lookup>('get', (copy, { id, rev }) => copy.get(id, rev));
  serve<{ name: string; id: string }, StoredDoc[]>('leaves', (copy, { id }) => copy.leaves(id));
  serve<{ name: string; wanted: Record<string, string[]> }, Record<string, string[]>>(
    'missing',
    (copy, { wanted }) => copy.missing(wanted),
  );
  serve<{ name: string } & Window, Rows>('rows', (copy, window) => rowsOf(copy, window));
  serve<{ name: string; selector: Body; limit: number }, Body[]>('find', (copy, { selector, limit }) =>
    found(copy, selector, limit),
  );
  serve<{ name: string }, CopyInfo>('info', (copy) => copy.info());
  serve<{ name: string } & ChangesAsk, ChangesAnswer>('changes', (copy, ask) => changesOf(copy, ask));
  serve<{ name: string; id: string }, Body | null>('local', (copy, { id }) => copy.local(id) ?? null);
  serve<{ name: string; id: string; body: Body | null }, null>('put_local', (copy, { id, body }) => {
    copy.putLocal(id, body);
    return null;
  });
  serve<{ name: string }, Body>('all_security', (copy) => copy.security);
  serve<{ name: string; security: Body }, null>(
    'set_security',
    (copy, { security }) => {
      copy.setSecurity(security);
      return null;
    },
    false,
  );
  serve<{ name: string; limit: number }, null>(
    'set_revs_limit',
    (copy, { limit }) => {
      copy.setRevsLimit(limit);
      return null;
    },
    false,
  );
  serveDatabases({ distribution, files, catalogue, settings });
}

/** Making and removing databases works in maintenance mode too. */
function serveDatabases({ distribution, files, catalogue }: Parts): void {
  distribution.handle(
    'fabric.create_file',
    async ({ name }: { name: string }) => (await files.create(name)).fresh,
  );
  distribution.handle('fabric.delete_file', async ({ name }: { name: string }) => await files.remove(name));
  distribution.handle('fabric.create_map', async ({ db, body }: { db: string; body: Body }) => {
    const lookup = catalogue.copy.get(db);
    if ('found' in lookup)
      return JSON.stringify(lookup.found.body) === JSON.stringify(body) ? 'ok' : 'conflict';
    const result = catalogue.copy.edit({ id: db, deleted: false, body });
    await files.flush('_dbs');
    return 'error' in result ? 'conflict' : 'ok';
  });
  distribution.handle('fabric.delete_map', async ({ db }: { db: string }) => {
    const lookup = catalogue.copy.get(db);
    if ('missing' in lookup) return 'not_found';
    // All that is in conflict goes with it: else a losing map would come to rule.
    for (const rev of [lookup.found.rev, ...lookup.found.conflicts]) {
      catalogue.copy.edit({ id: db, rev, deleted: true, body: {} });
    }
    await files.flush('_dbs');
    return 'ok';
  });
}

export function rowsOf(copy: Copy, window: Window): Rows {
  const total = copy.info().doc_count;
  const options = { docs: window.docs === true, conflicts: window.conflicts === true };
  if (window.keys !== undefined)
    return { total, rows: window.keys.flatMap((id) => rowOf(copy, id, options)) };
  let rows: Row[] = copy.rows(options);
  if (window.descending) rows = rows.reverse();
  const sign = window.descending ? -1 : 1;
  const { start, end } = window;
  if (start !== undefined) rows = rows.filter(({ id }) => sign * compareIds(id, start) >= 0);
  if (end !== undefined) {
    const last = window.inclusiveEnd === false ? -1 : 0;
    rows = rows.filter(({ id }) => sign * compareIds(id, end) <= last);
  }
  return { total, rows: rows.slice(0, window.limit) };
}

function rowOf(copy: Copy, id: string, options: { docs: boolean; conflicts: boolean }): Row[] {
  const lookup = copy.get(id);
  if ('missing' in lookup) return lookup.rev === undefined ? [] : [{ id, rev: lookup.rev, deleted: true }];
  const { rev, body, conflicts } = lookup.found;
  const shown = {
    _id: id,
    _rev: rev,
    ...body,
    ...(options.conflicts && conflicts.length > 0 ? { _conflicts: conflicts } : {}),
  };
  return [options.docs ? { id, rev, doc: shown } : { id, rev }];
}

function found(copy: Copy, selector: Body, limit: number): Body[] {
  const out: Body[] = [];
  for (const { id, doc } of copy.rows({ docs: true })) {
    if (out.length >= limit) break;
    if (doc !== undefined && !id.startsWith('_design/') && matchesSelector(doc, selector)) out.push(doc);
  }
  return out;
}

/** Changes now, or the first that come within `waitMs`. */
export async function changesOf(copy: Copy, ask: ChangesAsk): Promise<ChangesAnswer> {
  let changes = copy.changes(ask.since, ask.limit, ask);
  if (changes.length === 0 && ask.waitMs !== undefined) {
    await nextChange(copy, ask.waitMs);
    changes = copy.changes(ask.since, ask.limit, ask);
  }
  const complete = changes.length < ask.limit;
  const last = complete ? copy.seq : (changes.at(-1)?.seq ?? ask.since);
  const pending = complete ? 0 : copy.changes(last, Number.POSITIVE_INFINITY).length;
  return { changes, last, uuid: copy.uuid, pending };
}

function nextChange(copy: Copy, waitMs: number): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      copy.changed.off('change', done);
      resolve();
    };
    const timer = setTimeout(done, waitMs).unref();
    copy.changed.once('change', done);
  });
}
