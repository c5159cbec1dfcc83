import { CloudflareApi, CloudflareError, type CloudflareOptions, RACED, type Row } from './cloudflare-api.ts';
import { PluginError } from '../contract.ts';
import type { DnsChange, ZoneRecord } from './plan.ts';
import type { DnsProvider } from './provider.ts';
import type { MarkChange } from './shown.ts';

/**
 * A zone at Cloudflare. The mark of a record is its comment. New values are posted in one call, and read back before a
 * later call deletes others by their ids, so two writers never delete what the other has just made.
 */
export class CloudflareProvider implements DnsProvider {
  readonly #api: CloudflareApi;
  /** Sets that the founder has put behind the provider's proxy: new values go there too. */
  #proxied: ReadonlySet<string> = new Set();

  constructor(options: CloudflareOptions) {
    this.#api = new CloudflareApi(options);
  }

  async list(signal: AbortSignal): Promise<ZoneRecord[]> {
    const rows = await this.#api.list(signal);
    this.#proxied = new Set(rows.filter(({ proxied }) => proxied === true).map(keyOf));
    return rows.map((row) => ({
      name: row.name.toLowerCase(),
      type: row.type,
      value: valueOf(row),
      ttlS: row.ttl ?? 1,
      owner: /^bornemisza:([a-z0-9-]{1,63})$/.exec(row.comment ?? '')?.[1],
      id: row.id,
    }));
  }

  async changeAll(
    changes: readonly DnsChange[],
    owner: string,
    signal: AbortSignal,
    made: (change: DnsChange) => void,
  ): Promise<void> {
    const adding = changes.filter(({ kind }) => kind !== 'remove');
    const removing = changes.filter(({ kind }) => kind === 'remove');
    const posts = adding.flatMap((change) => change.values.map((value) => this.#post(change, value, owner)));
    if (posts.length > 0 && (await this.#batch({ posts }, signal))) adding.forEach(made);
    const deletes = removing.flatMap(({ ids }) => ids.map((id) => ({ id })));
    if (deletes.length > 0 && (await this.#batch({ deletes }, signal))) removing.forEach(made);
  }

  async mark({ name, type, ids, to }: MarkChange, signal: AbortSignal): Promise<void> {
    const comment = to === undefined ? '' : `bornemisza:${to}`;
    if (await this.#batch({ patches: ids.map((id) => ({ id, comment })) }, signal)) return;
    throw new PluginError({
      code: 'dns-changed',
      message: `${name} ${type} changed while it was marked; nothing is changed`,
      next: 'run the command again',
      outcome: 'retry',
    });
  }

  /** False: another writer was faster, so the zone must be read again. */
  async #batch(body: Parameters<CloudflareApi['batch']>[0], signal: AbortSignal): Promise<boolean> {
    try {
      await this.#api.batch(body, signal);
      return true;
    } catch (error) {
      if (error instanceof CloudflareError && RACED.has(error.apiCode)) return false;
      throw error;
    }
  }

  #post({ name, type, ttlS }: DnsChange, value: string, owner: string): object {
    const proxied = this.#proxied.has(keyOf({ name, type }));
    const shared = { name, type, ttl: proxied ? 1 : ttlS, comment: `bornemisza:${owner}` };
    if (type === 'TXT') return { ...shared, content: `"${value}"` };
    if (type !== 'SRV') return { ...shared, content: value, proxied };
    const [priority, weight, port, target] = value.split(' ');
    return {
      ...shared,
      data: { priority: Number(priority), weight: Number(weight), port: Number(port), target },
    };
  }
}

const keyOf = ({ name, type }: { readonly name: string; readonly type: string }): string =>
  `${name.toLowerCase()} ${type}`;

/** In the form of a zone file. */
function valueOf({ type, content = '', data }: Row): string {
  if (type === 'TXT') return content;
  if (type !== 'SRV') return content.toLowerCase();
  const { priority, weight, port, target = '' } = data ?? {};
  return `${priority} ${weight} ${port} ${target.replace(/\.$/, '').toLowerCase()}`;
}
