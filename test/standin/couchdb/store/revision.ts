import { createHash } from 'node:crypto';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Body = { [key: string]: Json };

/**
 * The revision that CouchDB gives an edit: MD5 of Erlang's external term format of
 * [Deleted, OldStart, OldRev, Body, Attachments] (couch_db:new_revid). Two nodes that make the same edit get
 * the same revision, and which side of a conflict wins is the real server's coin toss.
 * @param oldStart generation of the parent, 0 for a first revision
 * @param oldRev hash of the parent in hex
 */
export function newRevision(
  deleted: boolean,
  oldStart: number,
  oldRev: string | undefined,
  body: Body,
): string {
  const parts: Buffer[] = [Buffer.from([131, 108, 0, 0, 0, 5])];
  encode(deleted, parts);
  encode(oldStart, parts);
  if (oldRev === undefined) encode(0, parts);
  else encodeBinary(revisionBytes(oldRev), parts);
  encode(body, parts);
  parts.push(Buffer.from([106, 106]));
  return createHash('md5').update(Buffer.concat(parts)).digest('hex');
}

/** Replicated revisions may be any string; only 32 hex digits are packed into 16 bytes (couch_doc:parse_revid). */
function revisionBytes(rev: string): Buffer {
  return /^[0-9a-f]{32}$/i.test(rev) ? Buffer.from(rev, 'hex') : Buffer.from(rev);
}

function encode(value: Json, parts: Buffer[]): void {
  if (value === null || typeof value === 'boolean') {
    const atom = String(value);
    parts.push(Buffer.from([100, 0, atom.length]), Buffer.from(atom));
  } else if (typeof value === 'number') parts.push(encodeNumber(value));
  else if (typeof value === 'string') encodeBinary(Buffer.from(value), parts);
  else if (Array.isArray(value)) encodeList(value, parts);
  else encodeObject(value, parts);
}

function encodeNumber(value: number): Buffer {
  if (!Number.isInteger(value)) {
    const float = Buffer.alloc(9);
    float[0] = 70;
    float.writeDoubleBE(value, 1);
    return float;
  }
  if (value >= 0 && value < 256) return Buffer.from([97, value]);
  if (value >= -(2 ** 31) && value < 2 ** 31) {
    const int = Buffer.alloc(5);
    int[0] = 98;
    int.writeInt32BE(value, 1);
    return int;
  }
  const digits: number[] = [];
  for (let rest = BigInt(Math.abs(value)); rest > 0n; rest >>= 8n) digits.push(Number(rest & 255n));
  return Buffer.from([110, digits.length, value < 0 ? 1 : 0, ...digits]);
}

function encodeBinary(bytes: Buffer, parts: Buffer[]): void {
  parts.push(sized(109, bytes.length), bytes);
}

function encodeList(list: Json[], parts: Buffer[]): void {
  if (list.length === 0) {
    parts.push(Buffer.from([106]));
    return;
  }
  // Erlang packs a list of bytes as a string, an EJSON array of small numbers included.
  if (
    list.length < 65536 &&
    list.every((v) => typeof v === 'number' && Number.isInteger(v) && v >= 0 && v < 256)
  ) {
    parts.push(Buffer.from([107, list.length >> 8, list.length & 255, ...(list as number[])]));
    return;
  }
  parts.push(sized(108, list.length));
  for (const item of list) encode(item, parts);
  parts.push(Buffer.from([106]));
}

function encodeObject(object: Body, parts: Buffer[]): void {
  const entries = Object.entries(object);
  parts.push(Buffer.from([104, 1]));
  if (entries.length === 0) {
    parts.push(Buffer.from([106]));
    return;
  }
  parts.push(sized(108, entries.length));
  for (const [key, value] of entries) {
    parts.push(Buffer.from([104, 2]));
    encodeBinary(Buffer.from(key), parts);
    encode(value, parts);
  }
  parts.push(Buffer.from([106]));
}

function sized(tag: number, length: number): Buffer {
  const head = Buffer.alloc(5);
  head[0] = tag;
  head.writeUInt32BE(length, 1);
  return head;
}
