import { access, lstat, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Paths, pathsFor } from '../../daemon/config/config.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { answered } from '../answered.ts';
import { runConfined } from '../confined.ts';
import type { Host, Ran } from '../io.ts';
import { type BirdPlace, birdPlace } from '../setup/bird-place.ts';
import { isIncluded } from '../setup/bird-syntax.ts';
import { configOf, ROLES } from '../places.ts';
import type { Area, Check } from './check.ts';

/**
 * What HAProxy and BIRD report about the files that the daemon writes. Empty if this user is not root: root runs them
 * as the daemon's user; anybody else would run what the daemon wrote with their own rights.
 */
export interface Verdicts {
  readonly haproxy: ReadonlyMap<Role, Ran>;
  readonly bird: Ran | undefined;
}

/** Runs while this process is still root. It opens none of the files. */
export async function askPrograms(host: Host, root: string, only: Role | undefined): Promise<Verdicts> {
  const haproxy = new Map<Role, Ran>();
  let bird: Ran | undefined;
  if (root === '' && host.uid !== 0) return { haproxy, bird };
  for (const role of ROLES.filter((each) => only === undefined || each === only)) {
    if (!(await isThere(configOf(role, root)))) continue;
    const { haproxyFiles } = pathsFor(role, root);
    haproxy.set(
      role,
      await runConfined(host, root, 'haproxy', ['-c', '-f', join(haproxyFiles, 'haproxy.cfg')]),
    );
    if (role !== 'app') continue;
    // Whether it does not say where its file is, is reported with bird.conf.
    const place = await birdPlace(host, root).catch(() => undefined);
    if (place !== undefined && (await isThere(place.config)))
      bird = await runConfined(host, root, 'bird', ['-p', '-c', place.config]);
  }
  return { haproxy, bird };
}

const isThere = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );

const NOT_ASKED = 'not checked: only root can check it as user bornemisza';

export async function haproxyConfig(
  { haproxyFiles }: Paths,
  area: Area,
  role: Role,
  { haproxy }: Verdicts,
): Promise<Check> {
  const file = join(haproxyFiles, 'haproxy.cfg');
  const readable = await access(file).then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error.code,
  );
  if (readable === 'ENOENT')
    return area.warn('haproxy.cfg', `${file} does not exist yet`, 'the daemon writes it at its first start');
  if (readable !== undefined)
    return area.warn('haproxy.cfg', `${file} cannot be read: ${readable}`, 'run doctor as root');
  const said = haproxy.get(role);
  if (said === undefined) return area.warn('haproxy.cfg', NOT_ASKED, 'run doctor as root');
  answered(said);
  if (said.code === 0) return area.ok('haproxy.cfg', 'accepted by haproxy -c');
  return area.fail(
    'haproxy.cfg',
    `refused: ${alert(said.stderr + said.stdout)}`,
    `the daemon writes it again at its next check; if it does not: journalctl -u bornemisza@${role} -p warning`,
  );
}

function alert(text: string): string {
  const line = text.split('\n').find((each) => each.includes('[ALERT]')) ?? text.trim().split('\n')[0] ?? '';
  return line.replace(/^\[ALERT\]\s*(\(\d+\)\s*:)?\s*/, '').slice(0, 160);
}

/** @param place where BIRD's own files lie */
export async function birdConfig(
  paths: Paths,
  area: Area,
  { bird: said }: Verdicts,
  { config: file, socket }: BirdPlace,
): Promise<Check> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => error);
  if (text instanceof Error) {
    return text.code === 'ENOENT'
      ? area.fail(
          'bird.conf',
          `${file} does not exist: nothing can be announced`,
          'write it, or run the same bornemisza init or join with --reset and --bgp-neighbor',
        )
      : area.warn('bird.conf', `${file} cannot be read: ${text.code}`, 'run doctor as root');
  }
  // Other files can include it; a comment is no include, and a second include would define our protocol twice.
  if (!(await isIncluded(file, join(paths.birdFragments, 'bornemisza.conf')))) {
    return area.fail(
      'bird.conf',
      `${file} does not include ${paths.birdFragments}: nothing is announced`,
      `add to it: include "${paths.birdFragments}/*.conf";`,
    );
  }
  if (socket !== undefined && socket !== paths.birdSocket) {
    return area.fail(
      'bird.conf',
      `bird.service makes its control socket ${socket}, and the daemon speaks to ${paths.birdSocket}`,
      `systemctl edit bird: an empty ExecStart=, then its command with -s ${paths.birdSocket}`,
    );
  }
  if (said === undefined) return area.warn('bird.conf', NOT_ASKED, 'run doctor as root');
  answered(said);
  if (said.code === 0) return area.ok('bird.conf', 'accepted by bird -p');
  return area.fail(
    'bird.conf',
    `refused: ${(said.stderr + said.stdout).trim().split('\n')[0] ?? ''}`,
    `correct ${file}, then birdc configure`,
  );
}
