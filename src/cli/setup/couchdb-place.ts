import { lstat } from 'node:fs/promises';
import { USUAL_DIRECTORY } from '../../host/couchdb-directory.ts';
import { answered } from '../answered.ts';
import type { Host } from '../io.ts';

/**
 * Where CouchDB is on this host: in the usual place, else where its unit says. Undefined: it is not installed, or its
 * unit starts something else. Opens no file.
 */
export async function couchdbPlace(host: Host, root: string): Promise<string | undefined> {
  if (await holdsCouchdb(root + USUAL_DIRECTORY)) return USUAL_DIRECTORY;
  if (root !== '') return undefined;
  const place = placeOfUnit(answered(await host.run('systemctl', ['cat', 'couchdb.service'])).stdout);
  return place !== undefined && (await holdsCouchdb(place)) ? place : undefined;
}

/**
 * The directory of `ExecStart=` in `systemctl cat`. Our own drop-in replaces what the unit says, so systemd itself no
 * longer knows it.
 */
export function placeOfUnit(text: string): string | undefined {
  const started = /^ExecStart=[-@:+!]*"?((?:\/[A-Za-z0-9_][A-Za-z0-9._-]*)+)\/bin\/couchdb"?(?:\s|$)/m;
  return started.exec(text)?.[1];
}

const holdsCouchdb = (directory: string): Promise<boolean> =>
  lstat(`${directory}/bin/couchdb`).then(
    () => true,
    () => false,
  );
