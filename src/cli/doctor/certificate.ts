import { Resolver } from 'node:dns/promises';
import type { CertificateShown, MembersAnswer, StatusAnswer } from '../../daemon/control/api.ts';
import type { ControlClient } from '../client.ts';
import { formatDuration } from '../duration.ts';
import { isHeard } from '../members.ts';
import type { Area, Check } from './check.ts';

/** The DNS queries of the checks. */
export interface Lookup {
  resolve4(name: string): Promise<readonly string[]>;
  resolve6(name: string): Promise<readonly string[]>;
  resolveCaa(name: string): Promise<readonly { readonly issue?: string | undefined }[]>;
}

/** A server that runs answers sooner, and doctor must not wait for long. */
const DNS: Lookup = new Resolver({ timeout: 2000, tries: 1 });

/** How a CA names itself in a CAA record (RFC 8659), by the host of its directory. */
const CAA_NAMES: readonly (readonly [host: RegExp, name: string])[] = [
  [/\.letsencrypt\.org$/, 'letsencrypt.org'],
  [/\.zerossl\.com$/, 'sectigo.com'],
  [/\.pki\.goog$/, 'pki.goog'],
  [/\.buypass\.(com|no)$/, 'buypass.com'],
];

/** Whether the certificate that [certificates] orders is there, is served by all edges, and can be renewed. */
export async function checkCertificate(
  daemon: Pick<ControlClient, 'get'>,
  { floating }: Pick<StatusAnswer, 'floating'>,
  members: MembersAnswer['members'],
  area: Area,
  lookup: Lookup = DNS,
): Promise<Check[]> {
  const answer = await daemon.get<CertificateShown>('/v1/certificate');
  return [
    life(answer, area),
    ...served(answer, area),
    orderers(members, area),
    ...(await Promise.all(answer.names.map((name) => leadsHere(name, floating, members, area, lookup)))),
    ...(await caa(answer, area, lookup)),
  ];
}

function life({ current, problem, failingSince }: CertificateShown, area: Area): Check {
  if (problem !== undefined && failingSince !== undefined) {
    const detail = `orders fail since ${failingSince}: ${problem.message}`;
    return current === undefined
      ? area.fail('site certificate', detail, problem.next)
      : area.warn('site certificate', detail, problem.next);
  }
  if (current === undefined)
    return area.warn(
      'site certificate',
      'there is none yet',
      'see what it waits for: bornemisza certificate show',
    );
  const leftMs = Date.parse(current.ends) - Date.now();
  if (leftMs <= 0)
    return area.fail(
      'site certificate',
      `it ended ${formatDuration(-leftMs)} ago`,
      'bornemisza certificate renew; for the cause: bornemisza certificate show',
    );
  return area.ok('site certificate', `${current.names.join(', ')}, ${formatDuration(leftMs)} left`);
}

/** Browsers must get the same certificate from each edge. */
function served({ current, edges }: CertificateShown, area: Area): Check[] {
  if (current === undefined) return [];
  const others = edges.filter(({ sha256 }) => sha256 !== undefined && sha256 !== current.sha256);
  const silent = edges.filter(({ sha256 }) => sha256 === undefined);
  const names = (list: CertificateShown['edges']): string => list.map(({ name }) => name).join(', ');
  if (others.length > 0)
    return [
      area.fail(
        'edges',
        `${names(others)} serves another certificate than the site's`,
        'run `bornemisza status` there: HAProxy must have converged, and app.toml must be the same as here',
      ),
    ];
  return [
    silent.length > 0
      ? area.warn(
          'edges',
          `${names(silent)} does not answer TLS`,
          'run `bornemisza status` there: HAProxy must run',
        )
      : area.ok('edges', `${edges.length} of ${edges.length} serve the same certificate`),
  ];
}

function orderers(members: MembersAnswer['members'], area: Area): Check {
  const apps = members.filter((each) => each.role === 'app' && isHeard(each));
  const able = apps.filter(({ tags }) => tags['orders'] === 'ready');
  if (able.length > 1 || apps.length < 2)
    return area.ok('orderers', `${able.length} of ${apps.length} app nodes can order`);
  return area.warn(
    'orderers',
    'only one app node can order: if it dies, nothing is renewed',
    'put the same [certificates] into app.toml of each app node',
  );
}

/** The CA connects to port 80 of each address of the name. */
async function leadsHere(
  name: string,
  floating: readonly string[],
  members: MembersAnswer['members'],
  area: Area,
  lookup: Lookup,
): Promise<Check> {
  const what = `name ${name}`;
  const found = (await Promise.all([lookup.resolve4(name), lookup.resolve6(name)].map(orNone))).flat();
  if (found.length === 0)
    return area.fail(what, 'the name has no address', `create its record, or let [dns] do it`);
  const apps = members.filter(({ role }) => role === 'app');
  const ours = new Set([...floating, ...apps.flatMap(({ tags }) => (tags['public'] ?? '').split(' '))]);
  const foreign = found.filter((each) => !ours.has(each));
  if ([...ours].every((each) => each === ''))
    return area.ok(what, `resolves to ${found.join(', ')} (no public address is configured to compare with)`);
  if (foreign.length === 0) return area.ok(what, `resolves to ${found.join(', ')}`);
  return area.warn(
    what,
    `it resolves to ${foreign.join(', ')}, which is no floating IP and no public address of an app node`,
    'correct its record; behind a proxy (e.g. of Cloudflare) ignore this',
  );
}

/** The nearest record decides (RFC 8659 section 3); without one every CA may sign. */
async function caa({ names, directory }: CertificateShown, area: Area, lookup: Lookup): Promise<Check[]> {
  const host = URL.canParse(directory) ? new URL(directory).hostname : '';
  const ca = CAA_NAMES.find(([pattern]) => pattern.test(host))?.[1];
  if (ca === undefined) return [];
  const forbidden: string[] = [];
  for (const name of names) {
    const issuers = await nearestCaa(name, lookup);
    if (issuers.length > 0 && !issuers.includes(ca)) forbidden.push(`${name} (${issuers.join(', ')})`);
  }
  if (forbidden.length === 0) return [area.ok('CAA', `${ca} may sign for all names`)];
  return [
    area.fail('CAA', `only other CAs may sign for ${forbidden.join('; ')}`, `add to it: 0 issue "${ca}"`),
  ];
}

async function nearestCaa(name: string, lookup: Lookup): Promise<string[]> {
  const labels = name.replace(/^\*\./, '').split('.');
  for (let at = 0; at < labels.length - 1; at += 1) {
    const records = await orNone(lookup.resolveCaa(labels.slice(at).join('.')));
    const issuers = records.flatMap(({ issue }) =>
      issue === undefined ? [] : [issue.split(';')[0]?.trim() ?? ''],
    );
    if (issuers.length > 0) return issuers;
  }
  return [];
}

/** A DNS server that does not answer shows as names without an address. */
async function orNone<T>(asked: Promise<readonly T[]>): Promise<readonly T[]> {
  return asked.catch(() => []);
}
