import type { KeyRing } from './keys.ts';

const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';
/** 160 bits: two addresses never share a name by chance. */
const NAME_BYTES = 20;
export const ACCOUNT_NAME = /^a[a-z2-7]{32}$/;

/**
 * The name of the account of an address: the same at every node, so that two confirmations at once write the same
 * document. A CouchDB cluster accepts both of two different documents under one new id and may keep either.
 *
 * @param generation how often the address was released before; each use of it is another account
 */
export function accountName(keys: KeyRing, identity: string, generation: number): string {
  return `a${base32(keys.lastingMac('account-name', `${generation} ${identity}`).subarray(0, NAME_BYTES))}`;
}

/**
 * The id of the document that says who has an address: `{account}` or `{released}`. No id contains the address itself.
 */
export function addressDocumentId(keys: KeyRing, identity: string): string {
  return `email:${keys.lastingMac('account-name', `address ${identity}`).toString('hex')}`;
}

/** The id of the document that says when mail went to an address. */
export function mailDocumentId(keys: KeyRing, identity: string): string {
  return `mail:${keys.lastingMac('account-name', `mail ${identity}`).toString('hex')}`;
}

/** couch_peruser's name for the database of a user. */
export function databaseOf(user: string): string {
  return `userdb-${Buffer.from(user, 'utf8').toString('hex')}`;
}

export function userDocumentId(name: string): string {
  return `org.couchdb.user:${name}`;
}

function base32(bytes: Buffer): string {
  let bits = '';
  for (const byte of bytes) bits += byte.toString(2).padStart(8, '0');
  return (bits.match(/.{1,5}/g) ?? []).map((five) => BASE32.charAt(Number.parseInt(five, 2))).join('');
}
