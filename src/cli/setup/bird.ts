import { chown, readFile, stat } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { dirname, join } from 'node:path';
import type { Config, Paths } from '../../daemon/config/config.ts';
import { readAccounts } from '../../host/account.ts';
import { readIfPresent, replaceFile, stageFile } from '../../host/files.ts';
import { isGlobalUnicast } from '../../host/public-address.ts';
import { answered } from '../answered.ts';
import { runConfined } from '../confined.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Io } from '../io.ts';
import { presetOf } from './bgp-presets.ts';
import {
  BIRD_MARK,
  type BirdFacts,
  birdLinesToAdd,
  birdText,
  checkUpstream,
  familyOf,
  needsLocal,
  type Upstream,
} from './bird-text.ts';
import { birdPlace } from './bird-place.ts';
import { isIncluded, isUntouched } from './bird-syntax.ts';
import type { SetupOptions } from './options.ts';
import { ensureDirectory } from './owners.ts';
import type { Step } from './steps.ts';

interface Place {
  readonly paths: Paths;
  readonly root: string;
  readonly config: Config;
  readonly routerId: string;
}

/** The first set-up of BIRD. A bird.conf that a person wrote is not changed: then the lines to add are printed. */
export async function birdStep(io: Io, options: SetupOptions, place: Place): Promise<Step> {
  const { config: file } = await birdPlace(io.host, place.root);
  const upstream = await upstreamOf(options, place.config.floating.addresses);
  const present = await readIfPresent(file);
  if (present?.startsWith(BIRD_MARK) === true) {
    return { title: `set up ${file}`, already: 'it exists and is kept', run: async () => undefined };
  }
  const { addresses, hold_time_s: holdTimeS, bfd } = place.config.floating;
  const liveness = { holdTimeS, bfd };
  const facts = { floatingAddresses: addresses, fragments: place.paths.birdFragments, liveness };
  if (present !== undefined && !isUntouched(present)) {
    const ready = await isIncluded(file, join(facts.fragments, 'bornemisza.conf'));
    return {
      title: `do not change ${file}: it is your own`,
      run: async () => (ready ? undefined : `Add to ${file}:\n${birdLinesToAdd(facts)}`),
    };
  }
  if (upstream === undefined) {
    return {
      title: `do not change ${file}: no --bgp-neighbor and no --bgp-provider was given`,
      run: async () =>
        `Nothing is announced until ${file} has the BGP session with your provider and:\n${birdLinesToAdd(facts)}`,
    };
  }
  const text = birdText(completed(io, place, { ...facts, routerId: place.routerId, upstream }));
  return {
    title:
      `write ${file}: BGP with ${upstream.neighbors.join(' and ')} (AS ${upstream.neighborAs}), hold time ` +
      `${holdTimeS} s${bfd ? ', BFD' : ''}, only ` +
      `${facts.floatingAddresses.join(', ')} may be announced`,
    run: () => write(io, place, file, text, present !== undefined),
  };
}

/** With this host's own IPv6 address, if a session must name it. */
function completed(io: Io, { config }: Place, facts: BirdFacts): BirdFacts {
  if (!needsLocal(facts) || !facts.upstream.neighbors.some(isIPv6)) return facts;
  const device = config.network.public_device ?? '';
  const here = io.host.interfaces()[device] ?? [];
  const own = here.find(({ address }) => isGlobalUnicast(address) && isIPv6(address))?.address;
  if (own !== undefined) return { ...facts, localIpv6: own };
  throw new CliFailure(
    EXIT.failure,
    'bgp-incomplete',
    `BFD over several hops needs this host's public IPv6 address, and ${device || 'no public device'} has none`,
    'put it on the device (`ip -6 addr`), or leave --bgp-bfd out',
  );
}

/** @throws CliFailure for flags that don't fit together, and see {@link checkUpstream} */
async function upstreamOf(options: SetupOptions, floating: readonly string[]): Promise<Upstream | undefined> {
  const { bgpNeighbor, bgpAs, bgpLocalAs, bgpPasswordFile, bgpMultihop, bgpProvider } = options;
  const preset = presetOf(bgpProvider);
  const wanted = floating.map(familyOf);
  const neighbors = bgpNeighbor ?? preset?.neighbors.filter((each) => wanted.includes(familyOf(each)));
  if (neighbors === undefined) return undefined;
  const [neighborAs, localAs] = [bgpAs ?? preset?.neighborAs, bgpLocalAs ?? preset?.localAs];
  if (neighborAs === undefined || localAs === undefined) {
    throw new CliFailure(
      EXIT.usage,
      'bgp-incomplete',
      preset === undefined
        ? '--bgp-neighbor needs --bgp-as and --bgp-local-as'
        : `--bgp-provider ${bgpProvider} needs --bgp-local-as`,
      'your provider’s page about BGP has them',
    );
  }
  const upstream = checkUpstream({
    ...{ neighbors, neighborAs, localAs },
    multihop: bgpMultihop ?? preset?.multihop,
    password: bgpPasswordFile === undefined ? undefined : await secretOf(bgpPasswordFile),
  });
  refuseOneSided(neighbors, floating);
  return upstream;
}

/** Each session has the addresses of its neighbour's family: each address needs one, each session some address. */
function refuseOneSided(neighbors: readonly string[], floating: readonly string[]): void {
  const without = (some: readonly string[], others: readonly string[]): string | undefined =>
    some.find((each) => !others.map(familyOf).includes(familyOf(each)));
  const [address, neighbor] = [without(floating, neighbors), without(neighbors, floating)];
  const family = isIPv6(address ?? neighbor ?? '') ? 'IPv6' : 'IPv4';
  if (address !== undefined)
    throw new CliFailure(
      EXIT.usage,
      'bgp-incomplete',
      `the floating IP ${address} has no session: no ${family} neighbour is known`,
      `name it too (--bgp-neighbor ADDRESS,ADDRESS); your provider’s page about BGP has it`,
    );
  if (neighbor !== undefined)
    throw new CliFailure(
      EXIT.usage,
      'bgp-incomplete',
      `the session with ${neighbor} would announce nothing: no floating IP is ${family}`,
      `add one to --floating-ip, or leave this neighbour out`,
    );
}

async function secretOf(file: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).replace(/\r?\n$/, '');
  } catch (error) {
    throw new CliFailure(
      EXIT.failure,
      'password-file-unreadable',
      `cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`,
      'correct --bgp-password-file',
      { cause: error },
    );
  }
}

/** Stages the file, has BIRD check it, and only then puts it in place. */
async function write(
  io: Io,
  place: Place,
  file: string,
  text: string,
  present: boolean,
): Promise<string | undefined> {
  await ensureDirectory(dirname(file), 0o750);
  const staged = await stageFile(file, text, { mode: 0o640 });
  // BIRD does not run as root, so it could not read a file that only root can read.
  const group = place.root === '' ? (await readAccounts()).groups.get('bird') : undefined;
  if (group !== undefined) await chown(staged.stagedPath, 0, group);
  // It includes what the daemon writes.
  const judged = await runConfined(io.host, place.root, 'bird', ['-p', '-c', staged.stagedPath]);
  if (judged.silence !== undefined) await staged.discard();
  answered(judged);
  if (judged.code > 0) {
    await staged.discard();
    throw new CliFailure(
      EXIT.failure,
      'bird-config-refused',
      `BIRD refuses the configuration: ${firstLine(judged.stderr)}`,
      `correct what it names; ${file} is unchanged`,
    );
  }
  const notes: string[] = [];
  if (present) {
    const backup = await keep(file);
    notes.push(`The distribution's file is kept as ${backup}.`);
  }
  await staged.commit();
  if (judged.code === -1)
    notes.push('BIRD is not installed yet: dnf install bird (EL: from EPEL) or apt-get install bird2.');
  else if (place.root === '') notes.push(...(await reload(io, place.root)));
  return notes.length === 0 ? undefined : notes.join('\n');
}

async function reload(io: Io, root: string): Promise<string[]> {
  const active = await io.host.run('systemctl', ['is-active', '--quiet', 'bird.service']);
  if (active.silence !== undefined)
    return [`BIRD may not have loaded it: ${active.silence.message} -- birdc configure`];
  if (active.code !== 0) return [];
  const configured = await runConfined(io.host, root, 'birdc', ['configure']);
  return configured.code === 0
    ? []
    : [
        `BIRD runs but did not load it: ${firstLine(configured.stderr + configured.stdout)} -- systemctl restart bird`,
      ];
}

/** The first backup is the original; a later one never replaces it. */
async function keep(file: string): Promise<string> {
  const first = `${file}.distribution`;
  const exists = (await readIfPresent(first)) !== undefined;
  const backup = exists ? `${file}.before-bornemisza` : first;
  const { mode } = await stat(file);
  // A copy: bird.conf always exists, and the backup is whole.
  await replaceFile(backup, await readFile(file), { mode: mode & 0o7777 });
  return backup;
}

function firstLine(text: string): string {
  return text.trim().split('\n')[0] ?? '';
}
