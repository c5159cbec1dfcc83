import { readdir } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { CONFIG_FORMAT, formatOf, migrated } from '../../daemon/config/format.ts';
import { loadServices, parseConfig, type Paths } from '../../daemon/config/config.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { readIfPresent, replaceFile } from '../../host/files.ts';
import { CliFailure, EXIT } from '../failure.ts';

export interface Migrated {
  readonly file: string;
  readonly from: number;
  readonly to: number;
  /** Path of the previous file; '' if nothing was changed. */
  readonly backup: string;
  readonly changes: readonly string[];
}

/**
 * Converts a role's configuration to the format of this version. After a downgrade, the file of the earlier version is
 * restored, and the later one is kept.
 *
 * @returns undefined when the role has no configuration
 * @throws OperatorError `config-invalid`, `config-too-new`, PluginError of the file; the file is unchanged then
 */
export async function migrateConfig(role: Role, paths: Paths): Promise<Migrated | undefined> {
  const file = paths.config;
  const text = await readIfPresent(file);
  if (text === undefined) return undefined;
  // Refuses what is not TOML, with its line.
  const from = formatIn(text, file);
  if (from === CONFIG_FORMAT) return { file, from, to: from, backup: '', changes: [] };
  const wanted = from < CONFIG_FORMAT ? migrated(text) : await earlier(file, from);
  parseConfig(wanted.text, role, file, role === 'app' ? await loadServices(paths.services) : []);
  const backup = backupOf(file, from);
  await replaceFile(backup, text, { mode: 0o600 });
  await replaceFile(file, wanted.text);
  return { file, from, to: formatOf(wanted.text), backup, changes: wanted.changes };
}

function formatIn(text: string, file: string): number {
  try {
    return formatOf(text);
  } catch (error) {
    throw new CliFailure(
      EXIT.failure,
      'config-invalid',
      `${file} is not valid TOML, so its format is not known`,
      'correct the file: bornemisza config check; then run `bornemisza config migrate`',
      { cause: error },
    );
  }
}

const backupOf = (file: string, format: number | ''): string => `${file}.format-${format}`;

/** The newest previous file that this version can read. */
async function earlier(
  file: string,
  from: number,
): Promise<{ readonly text: string; readonly changes: readonly string[] }> {
  const names = await readdir(dirname(file));
  const prefix = basename(backupOf(file, ''));
  const formats = names
    .filter((name) => name.startsWith(prefix))
    .map((name) => Number(name.slice(prefix.length)))
    .filter((format) => Number.isSafeInteger(format) && format <= CONFIG_FORMAT)
    .sort((one, other) => other - one);
  const [format] = formats;
  const text = format === undefined ? undefined : await readIfPresent(backupOf(file, format));
  if (text === undefined) {
    throw new CliFailure(
      EXIT.failure,
      'config-too-new',
      `${file} has format ${from}, this version reads ${CONFIG_FORMAT}, and no file from before is kept`,
      'install the later version again, or write the file again (docs/configuration.md)',
    );
  }
  return { text: migrated(text).text, changes: ['the previous file was restored'] };
}
