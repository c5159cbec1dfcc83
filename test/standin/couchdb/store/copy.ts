import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import {
  collectLeaves,
  isDeleted,
  merge,
  type RevNode,
  type RevTree,
  revExists,
  rootToLeaf,
  winningRev,
} from 'pouchdb-merge';
import { type Body, type Json, newRevision } from './revision.ts';

/** A revision with its ancestry, newest first, as `_revisions` shows it. */
export type Revisions = { start: number; ids: string[] };
/** A document as one copy hands it to another (new_edits = false). */
export type StoredDoc = { id: string; revs: Revisions; deleted: boolean; body: Body };
export type Edit = { id: string; rev?: string; deleted: boolean; body: Body };
export type EditResult = { rev: string } | { error: 'conflict' };
export type Change = { seq: number; id: string; changes: { rev: string }[]; deleted?: true; doc?: Body };
/** What a read of one document finds; `revs` only for what was found. */
export type Found = {
  rev: string;
  revs: Revisions;
  deleted: boolean;
  body: Body;
  conflicts: string[];
  deletedConflicts: string[];
};
export type Lookup = { found: Found } | { missing: 'missing' | 'deleted'; rev?: string };
export type CopyInfo = {
  db_name: string;
  doc_count: number;
  doc_del_count: number;
  update_seq: number;
  uuid: string;
  instance_start_time: string;
  external: number;
};

type Entry = { tree: RevTree; seq: number; bodies: Map<string, Body> };
type Line =
  | { h: { uuid: string; created: string } }
  | { d: [id: string, seq: number, start: number, ids: string[], deleted: boolean, body: Body] }
  | { l: [id: string, body: Body | null] }
  | { s: [seq: number, security: Body] }
  | { r: [seq: number, limit: number] };

/** Old bodies stay readable by `?rev=` as before a compaction, up to so many per document. */
const keptBodies = 30;
export const defaultSecurity: Body = { members: { roles: ['_admin'] }, admins: { roles: ['_admin'] } };

/**
 * One copy of one shard range (or one node-local database): documents with their revision trees, the sequence
 * of changes, local documents, security object. It knows of no other copy. Every change is handed to `append`
 * as a line; `replay` of those lines makes the same copy again.
 */
export class Copy {
  readonly name: string;
  readonly openedAt = Date.now();
  readonly changed = new EventEmitter();
  uuid = randomBytes(16).toString('hex');
  seq = 0;
  security: Body = defaultSecurity;
  revsLimit = 1000;
  #created = String(Date.now() * 1000 + Math.floor(Math.random() * 1000));
  #docs = new Map<string, Entry>();
  /** Ids by sequence, stale entries included: an entry counts when the document still has that sequence. */
  #log: { seq: number; id: string }[] = [];
  #deleted = 0;
  #bytes = 0;
  #locals = new Map<string, Body>();
  #append: (line: string) => void = () => undefined;

  constructor(name: string) {
    this.name = name;
    this.changed.setMaxListeners(0);
  }

  /** Starts writing: a fresh copy writes its header first. */
  writeTo(append: (line: string) => void, fresh: boolean): void {
    this.#append = append;
    if (fresh) this.#emit({ h: { uuid: this.uuid, created: this.#created } });
  }

  /** A line that a full disk cut short was written again after it, and is passed over. */
  replay(line: string): void {
    if (!line.endsWith('}')) return;
    let record: Line;
    try {
      record = JSON.parse(line) as Line;
    } catch {
      return;
    }
    if ('h' in record) {
      this.uuid = record.h.uuid;
      this.#created = record.h.created;
    } else if ('d' in record) {
      const [id, seq, start, ids, deleted, body] = record.d;
      this.#apply({ id, revs: { start, ids }, deleted, body }, seq);
    } else if ('l' in record) this.#applyLocal(...record.l);
    else if ('s' in record) [this.seq, this.security] = record.s;
    else [this.seq, this.revsLimit] = record.r;
  }

  info(): CopyInfo {
    return {
      db_name: this.name,
      doc_count: this.#docs.size - this.#deleted,
      doc_del_count: this.#deleted,
      update_seq: this.seq,
      uuid: this.uuid,
      instance_start_time: this.#created,
      external: this.#bytes,
    };
  }

  get(id: string, rev?: string): Lookup {
    const entry = this.#docs.get(id);
    if (entry === undefined) return { missing: 'missing' };
    const winner = winningRev({ rev_tree: entry.tree });
    const wanted = rev ?? winner;
    const body = entry.bodies.get(wanted);
    if (body === undefined) return { missing: 'missing' };
    const deleted = isDeleted({ rev_tree: entry.tree }, wanted);
    if (deleted && rev === undefined) return { missing: 'deleted', rev: winner };
    const losers = collectLeaves(entry.tree).filter((leaf) => leaf.rev !== winner);
    const conflicts = losers.filter((leaf) => leaf.opts.deleted !== true).map((leaf) => leaf.rev);
    const deletedConflicts = losers.filter((leaf) => leaf.opts.deleted === true).map((leaf) => leaf.rev);
    return {
      found: { rev: wanted, revs: ancestry(entry.tree, wanted), deleted, body, conflicts, deletedConflicts },
    };
  }

  /** All leaves, for a coordinator that compares copies and for internal replication. */
  leaves(id: string): StoredDoc[] {
    const entry = this.#docs.get(id);
    if (entry === undefined) return [];
    return collectLeaves(entry.tree).map((leaf) => ({
      id,
      revs: ancestry(entry.tree, leaf.rev),
      deleted: leaf.opts.deleted === true,
      body: entry.bodies.get(leaf.rev) ?? {},
    }));
  }

  /** An interactive edit: must name a leaf, or none where there is no living document. */
  edit(change: Edit): EditResult {
    const entry = this.#docs.get(change.id);
    const parent = parentOf(entry, change);
    if (parent === 'conflict') return { error: 'conflict' };
    const start = parent?.start ?? 0;
    const hash = newRevision(change.deleted, start, parent?.ids[0], change.body);
    const revs = { start: start + 1, ids: [hash, ...(parent?.ids ?? [])] };
    const rev = `${revs.start}-${hash}`;
    if (entry !== undefined && revExists(entry.tree, rev)) {
      // The very same first edit again is a conflict; the same edit of a leaf cannot exist already.
      return { error: 'conflict' };
    }
    this.put({ id: change.id, revs, deleted: change.deleted, body: change.body });
    return { rev };
  }

  /** Merges a revision that another copy made; what is known already changes nothing. */
  put(doc: StoredDoc): void {
    const entry = this.#docs.get(doc.id);
    if (entry !== undefined && revExists(entry.tree, `${doc.revs.start}-${doc.revs.ids[0]}`)) return;
    this.#apply(doc, this.seq + 1);
    this.#emit({ d: [doc.id, this.seq, doc.revs.start, doc.revs.ids, doc.deleted, doc.body] });
    this.changed.emit('change', doc.id);
  }

  /** Which of these revisions this copy does not have. */
  missing(wanted: Record<string, string[]>): Record<string, string[]> {
    const out: Record<string, string[]> = {};
    for (const [id, revs] of Object.entries(wanted)) {
      const tree = this.#docs.get(id)?.tree;
      const unknown = tree === undefined ? revs : revs.filter((rev) => !revExists(tree, rev));
      if (unknown.length > 0) out[id] = unknown;
    }
    return out;
  }

  /** Changes after `since`, oldest first, at most `limit`. */
  changes(
    since: number,
    limit: number,
    options: { docs?: boolean; allLeaves?: boolean; conflicts?: boolean } = {},
  ): Change[] {
    const out: Change[] = [];
    for (let i = firstAfter(this.#log, since); i < this.#log.length && out.length < limit; i++) {
      const { seq, id } = this.#log[i] as { seq: number; id: string };
      const entry = this.#docs.get(id);
      if (entry?.seq === seq) out.push(this.#change(id, entry, options));
    }
    return out;
  }

  #change(
    id: string,
    entry: Entry,
    options: { docs?: boolean; allLeaves?: boolean; conflicts?: boolean },
  ): Change {
    const rev = winningRev({ rev_tree: entry.tree });
    const others = options.allLeaves ? collectLeaves(entry.tree).filter((leaf) => leaf.rev !== rev) : [];
    const change: Change = {
      seq: entry.seq,
      id,
      changes: [{ rev }, ...others.map((leaf) => ({ rev: leaf.rev }))],
    };
    const deleted = isDeleted({ rev_tree: entry.tree });
    if (deleted) change.deleted = true;
    if (options.docs) change.doc = this.#shown(id, entry, rev, deleted, options.conflicts === true);
    return change;
  }

  #shown(id: string, entry: Entry, rev: string, deleted: boolean, withConflicts: boolean): Body {
    const losers = withConflicts
      ? collectLeaves(entry.tree).filter((leaf) => leaf.rev !== rev && !leaf.opts.deleted)
      : [];
    return {
      _id: id,
      _rev: rev,
      ...(deleted ? { _deleted: true } : {}),
      ...entry.bodies.get(rev),
      ...(losers.length > 0 ? { _conflicts: losers.map((leaf) => leaf.rev) } : {}),
    };
  }

  /** Living documents in the order of their ids. */
  rows(options: { docs?: boolean; conflicts?: boolean } = {}): { id: string; rev: string; doc?: Body }[] {
    const out: { id: string; rev: string; doc?: Body }[] = [];
    for (const id of this.ids()) {
      const entry = this.#docs.get(id) as Entry;
      const rev = winningRev({ rev_tree: entry.tree });
      out.push(
        options.docs
          ? { id, rev, doc: this.#shown(id, entry, rev, false, options.conflicts === true) }
          : { id, rev },
      );
    }
    return out;
  }

  ids(): string[] {
    const living = [...this.#docs]
      .filter(([, entry]) => !isDeleted({ rev_tree: entry.tree }))
      .map(([id]) => id);
    return living.sort(compareIds);
  }

  local(id: string): Body | undefined {
    return this.#locals.get(id);
  }

  localIds(): string[] {
    return [...this.#locals.keys()].sort(compareIds);
  }

  putLocal(id: string, body: Body | null): void {
    this.#applyLocal(id, body);
    this.#emit({ l: [id, body] });
  }

  /** Raises update_seq although nothing shows in `_changes`, as the real one does. */
  setSecurity(security: Body): void {
    this.seq += 1;
    this.security = security;
    this.#emit({ s: [this.seq, security] });
  }

  setRevsLimit(limit: number): void {
    this.seq += 1;
    this.revsLimit = limit;
    this.#emit({ r: [this.seq, limit] });
  }

  #emit(line: Line): void {
    this.#append(JSON.stringify(line));
  }

  #applyLocal(id: string, body: Body | null): void {
    if (body === null) this.#locals.delete(id);
    else this.#locals.set(id, body);
  }

  #apply(doc: StoredDoc, seq: number): void {
    const entry = this.#docs.get(doc.id) ?? { tree: [], seq: 0, bodies: new Map<string, Body>() };
    const wasLiving = entry.tree.length > 0 && !isDeleted({ rev_tree: entry.tree });
    const wasDeleted = entry.tree.length > 0 && !wasLiving;
    entry.tree = merge(entry.tree, pathOf(doc), this.revsLimit).tree;
    entry.bodies.set(`${doc.revs.start}-${doc.revs.ids[0]}`, doc.body);
    trimBodies(entry);
    entry.seq = seq;
    this.seq = Math.max(this.seq, seq);
    this.#docs.set(doc.id, entry);
    this.#log.push({ seq, id: doc.id });
    this.#trimLog();
    this.#bytes += doc.id.length + 20 + JSON.stringify(doc.body).length;
    const deleted = isDeleted({ rev_tree: entry.tree });
    if (deleted && !wasDeleted) this.#deleted += 1;
    if (!deleted && wasDeleted) this.#deleted -= 1;
  }

  #trimLog(): void {
    if (this.#log.length < 1000 || this.#log.length < 3 * this.#docs.size) return;
    this.#log = this.#log.filter(({ seq, id }) => this.#docs.get(id)?.seq === seq);
  }
}

/** CouchDB orders ids by raw bytes in _changes and _all_docs of a shard. */
export function compareIds(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

/** The revision that an edit extends: `undefined` for a first one, or why it can't be made. */
function parentOf(entry: Entry | undefined, change: Edit): Revisions | undefined | 'conflict' {
  if (change.rev !== undefined) {
    const leaf = entry && collectLeaves(entry.tree).find(({ rev }) => rev === change.rev);
    return entry === undefined || leaf === undefined ? 'conflict' : ancestry(entry.tree, change.rev);
  }
  if (entry === undefined) return change.deleted ? 'conflict' : undefined;
  if (!isDeleted({ rev_tree: entry.tree }) || change.deleted) return 'conflict';
  return ancestry(entry.tree, winningRev({ rev_tree: entry.tree }));
}

function pathOf(doc: StoredDoc): { pos: number; ids: RevNode } {
  const [leaf, ...older] = doc.revs.ids;
  const status = doc.deleted ? { status: 'available', deleted: true } : { status: 'available' };
  let node: RevNode = [leaf as string, status, []];
  for (const id of older) node = [id, { status: 'missing' }, [node]];
  return { pos: doc.revs.start - doc.revs.ids.length + 1, ids: node };
}

function ancestry(tree: RevTree, rev: string): Revisions {
  const start = Number(rev.slice(0, rev.indexOf('-')));
  const hash = rev.slice(rev.indexOf('-') + 1);
  for (const { pos, ids } of rootToLeaf(tree)) {
    const at = start - pos;
    if (ids[at]?.id === hash) {
      return {
        start,
        ids: ids
          .slice(0, at + 1)
          .map(({ id }) => id)
          .toReversed(),
      };
    }
  }
  return { start, ids: [hash] };
}

function trimBodies(entry: Entry): void {
  if (entry.bodies.size <= keptBodies) return;
  const leaves = new Set(collectLeaves(entry.tree).map((leaf) => leaf.rev));
  for (const rev of entry.bodies.keys()) {
    if (entry.bodies.size <= keptBodies) return;
    if (!leaves.has(rev)) entry.bodies.delete(rev);
  }
}

function firstAfter(log: { seq: number }[], since: number): number {
  let low = 0;
  let high = log.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((log[middle] as { seq: number }).seq > since) high = middle;
    else low = middle + 1;
  }
  return low;
}

export type { Body, Json };
