import { lstat } from 'node:fs/promises';
import { answered } from '../answered.ts';
import type { Host } from '../io.ts';

/** Debian's package reads the first, the rpms of Fedora, EPEL and BIRD's own authors the second. */
const OF_DEBIAN = '/etc/bird/bird.conf';
const OF_RPM = '/etc/bird.conf';

/** Where BIRD's own files lie on this host. */
export interface BirdPlace {
  /** The file that it starts with, `--root` before it. */
  readonly config: string;
  /** The control socket that its unit names; undefined: the one that it was built with. */
  readonly socket: string | undefined;
}

/**
 * Asks the unit, then BIRD itself, which names the file that it was built with. Where it is not installed, and under
 * `--root`, the distribution and the files that are there tell. Opens no file.
 */
export async function birdPlace(host: Host, root: string): Promise<BirdPlace> {
  if (root !== '') {
    const rpm = !(await isThere(root + OF_DEBIAN)) && (await isThere(root + OF_RPM));
    return { config: root + (rpm ? OF_RPM : OF_DEBIAN), socket: undefined };
  }
  const shown = answered(await host.run('systemctl', ['show', '--property=ExecStart', 'bird.service']));
  const { config, socket } = optionsOfUnit(shown.stdout);
  if (config !== undefined) return { config, socket };
  const help = answered(await host.run('bird', ['--help']));
  const built = builtWith(help.stdout + help.stderr);
  if (built !== undefined) return { config: built, socket };
  return { config: (await isThere('/etc/redhat-release')) ? OF_RPM : OF_DEBIAN, socket };
}

/** `-c` and `-s` of `systemctl show --property=ExecStart`. */
export function optionsOfUnit(shown: string): {
  readonly config: string | undefined;
  readonly socket: string | undefined;
} {
  const [, argv = ''] = /argv\[\]=(.*?) ; /.exec(shown) ?? [];
  const words = argv.split(/\s+/);
  const valueOf = (option: string): string | undefined => {
    const at = words.findIndex((word) => word.startsWith(option));
    const word = words[at]?.slice(option.length);
    return word === '' ? words[at + 1] : word;
  };
  return { config: inEtc(valueOf('-c')), socket: valueOf('-s') };
}

/** `bird --help` names the file that BIRD reads without `-c`. */
export function builtWith(help: string): string | undefined {
  return inEtc(/-c <config-file>\s.*?instead\s+of\s+(\S+)/s.exec(help)?.[1]);
}

/** Root writes the file in its first set-up, so it must lie where root alone writes. */
const inEtc = (path: string | undefined): string | undefined =>
  path !== undefined && /^\/etc\/(?:[\w-][\w.-]*\/)*[\w-][\w.-]*$/.test(path) ? path : undefined;

const isThere = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );
