import { rm } from 'node:fs/promises';
import { replaceFile } from '../../host/files.ts';
import { PluginError } from '../contract.ts';
import { type FirewallPaths, observeFirewall } from './observe.ts';
import { type FirewallChange, inForce } from './plan.ts';

/** The helper is in group bornemisza. */
const LIST_MODE = 0o640;
/** The helper checks every 0.7 s and loads within 0.2 s more; a machine under load needs longer. */
const LOAD_WITHIN_MS = 5000;
const LOOK_EVERY_MS = 50;

/** @throws PluginError `firewall-silent`; see fileError in src/host/files.ts */
export async function applyFirewall(
  changes: readonly FirewallChange[],
  paths: FirewallPaths,
  signal: AbortSignal,
  made: (change: FirewallChange) => void,
): Promise<void> {
  for (const change of changes) {
    if (change.kind === 'list') await replaceFile(paths.list, change.content, { mode: LIST_MODE });
    else await awaitLoaded(change, paths, signal);
    made(change);
  }
}

export async function restoreList(list: string | undefined, { list: path }: FirewallPaths): Promise<void> {
  if (list === undefined) await rm(path, { force: true });
  else await replaceFile(path, list, { mode: LIST_MODE });
}

/** The helper reads the list by itself; this waits for it. */
async function awaitLoaded(
  { apps, dbs }: FirewallChange & { kind: 'load' },
  paths: FirewallPaths,
  signal: AbortSignal,
): Promise<void> {
  const deadline = performance.now() + LOAD_WITHIN_MS;
  do {
    if (inForce((await observeFirewall(paths)).helper, apps, dbs)) return;
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  } while (!signal.aborted && performance.now() < deadline);
  throw new PluginError({
    code: 'firewall-silent',
    message:
      'the firewall has not loaded the list of members; its rules are unchanged, and new members cannot connect',
    next: 'see `journalctl -u bornemisza-firewall`: it names the line or the rule that it refuses',
    outcome: 'retry',
    // A list that the helper has not loaded yet is still valid.
    keepsChanges: true,
  });
}
