import { Resolver } from 'node:dns/promises';

export interface NameServer {
  readonly name: string;
  /** With its port, if that is not 53. */
  readonly address: string;
}

export interface TxtRecord {
  readonly name: string;
  readonly value: string;
}

/** A server that runs answers sooner; it is asked again. */
const LIMITS = { timeout: 2000, tries: 1 };
/** More than a zone has in practice (13 fit into an answer of 512 bytes). */
const MOST_SERVERS = 16;
/** The server answers that there is no such record; after any other error, its zone is not known. */
const NONE = new Set(['ENODATA', 'ENOTFOUND']);

/**
 * The name servers of a zone with one address each, as the resolver of this host finds them.
 *
 * @returns empty if it finds none
 */
export async function nameServersOf(zone: string): Promise<NameServer[]> {
  const resolver = new Resolver(LIMITS);
  const names = await resolver.resolveNs(zone).catch((): string[] => []);
  const found = await Promise.all(
    names.slice(0, MOST_SERVERS).map(async (name) => {
      const [address] = await resolver
        .resolve4(name)
        .catch(() => resolver.resolve6(name).catch((): string[] => []));
      return address === undefined ? [] : [{ name, address }];
    }),
  );
  return found.flat();
}

/**
 * Asks the servers themselves, as a resolver may have stored an older answer. A server that does not answer at all is
 * left out: the CA gets no answer there either.
 *
 * @returns the servers that lack a record, with its name; undefined: no server answers
 */
export async function lackingAt(
  servers: readonly NameServer[],
  wanted: readonly TxtRecord[],
): Promise<{ readonly server: string; readonly name: string }[] | undefined> {
  const answers = await Promise.all(servers.map(async (server) => lackingThere(server, wanted)));
  return answers.every((each) => each === undefined) ? undefined : answers.flatMap((each) => each ?? []);
}

async function lackingThere({ name: server, address }: NameServer, wanted: readonly TxtRecord[]) {
  const resolver = new Resolver(LIMITS);
  resolver.setServers([address.includes(':') && !/^[\d.]+:\d+$/.test(address) ? `[${address}]` : address]);
  const lacking: { readonly server: string; readonly name: string }[] = [];
  for (const [name, records] of Map.groupBy(wanted, (each) => each.name)) {
    const values = await valuesAt(resolver, name);
    if (values === undefined) return undefined;
    if (records.some(({ value }) => !values.includes(value))) lacking.push({ server, name });
  }
  return lacking;
}

/** @returns undefined: the server does not answer for this zone */
async function valuesAt(resolver: Resolver, name: string): Promise<string[] | undefined> {
  try {
    return (await resolver.resolveTxt(name)).map((parts) => parts.join(''));
  } catch (error) {
    return NONE.has((error as NodeJS.ErrnoException).code ?? '') ? [] : undefined;
  }
}
