import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

interface Directories {
  readonly couchdbFiles: string;
  readonly run: string;
}

/**
 * Ends CouchDB for good after its node document is gone: a start with its data would put it back into the cluster, and
 * until it stops the others stay connected with it. Without vm.args its unit does not start; the data stays.
 */
export async function retireCouchDb(paths: Directories): Promise<void> {
  await rm(join(paths.couchdbFiles, 'vm.args'), { force: true });
  await writeFile(restartFileOf(paths), 'stop: this node has left\n', { mode: 0o640 });
}

/** A path unit restarts CouchDB and removes it. */
export function restartFileOf({ run }: Pick<Directories, 'run'>): string {
  return join(run, 'restart-couchdb');
}
