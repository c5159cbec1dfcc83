import { readFileSync } from 'node:fs';
import manifest from '../../package.json' with { type: 'json' };

/**
 * Version of the program, from package.json; installed from a package, with the package's release (`0.1.0-2`), so that
 * two builds of one version differ. Read once, when the program starts.
 */
export const VERSION: string = packaged() ?? manifest.version;

/** The package puts its version and release beside the bundle. */
function packaged(): string | undefined {
  try {
    const text = readFileSync(new URL('release', import.meta.url), 'utf8').trim();
    return /^[0-9A-Za-z][0-9A-Za-z.+-]{0,31}$/.test(text) ? text : undefined;
  } catch {
    return undefined;
  }
}
