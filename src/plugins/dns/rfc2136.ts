import { isIP } from 'node:net';
import { runCommand } from '../../host/command.ts';
import { PluginError } from '../contract.ts';
import { type DnsChange, unquoted, type ZoneRecord } from './plan.ts';
import type { DnsProvider } from './provider.ts';
import type { MarkChange } from './shown.ts';

interface Rfc2136Options {
  readonly zone: string;
  /** IP address of the primary server. */
  readonly server: string;
  readonly port?: number;
  /** A key file as tsig-keygen(8) prints it. Its content is in no argument. */
  readonly keyFile: string;
}

const TIMEOUT_MS = 15_000;
/** Ten thousand records; the zone of a site has tens. */
const MOST_ZONE_BYTES = 2 * 1024 * 1024;
const MISSING = 'install it: `dnf install bind-utils`';

/**
 * A zone at a server that takes dynamic updates (RFC 2136) signed by TSIG (RFC 8945): BIND, Knot. The mark of a set is
 * a TXT at `_bornemisza-TYPE.NAME`, written in the same update; each update has the mark, or its absence, as its
 * prerequisite (RFC 2136 section 2.4), so two writers never change what the other has just made.
 */
export class Rfc2136Provider implements DnsProvider {
  readonly #options: Rfc2136Options;

  constructor(options: Rfc2136Options) {
    this.#options = options;
  }

  async list(signal: AbortSignal): Promise<ZoneRecord[]> {
    const { zone, server, port = 53, keyFile } = this.#options;
    const args = [
      '-k',
      keyFile,
      '-p',
      String(port),
      `@${server}`,
      zone,
      'AXFR',
      '+noall',
      '+answer',
      '+onesoa',
    ];
    const { code, stdout, stderr } = await runCommand('dig', [...args, '+time=5', '+tries=1'], {
      timeoutMs: TIMEOUT_MS,
      maxOutputBytes: MOST_ZONE_BYTES,
      signal,
      missingNext: MISSING,
    });
    const records = parseZone(stdout);
    // If the transfer is refused, dig exits with 0 and prints a comment; a whole zone has its SOA.
    if (code !== 0 || !records.some(({ type }) => type === 'SOA'))
      throw refusal(`${stdout}\n${stderr}`, server, zone);
    return withMarks(records);
  }

  async changeAll(
    changes: readonly DnsChange[],
    owner: string,
    signal: AbortSignal,
    made: (change: DnsChange) => void,
  ): Promise<void> {
    for (const change of changes) {
      try {
        await this.change(change, owner, signal);
        made(change);
      } catch (error) {
        if (!(error instanceof PluginError) || error.code !== 'dns-changed') throw error;
      }
    }
  }

  /** Makes one change whole or not at all. Throws `dns-changed` if the set differs from the planned state. */
  async change(change: DnsChange, owner: string, signal: AbortSignal): Promise<void> {
    const { name, type, values, ttlS, kind, last } = change;
    const mark = markName(name, type);
    if (type === 'TXT') return this.#changeTexts(change, mark, owner, signal);
    const prerequisites =
      kind === 'create'
        ? [`prereq nxrrset ${name}. ${type}`, `prereq nxrrset ${name}. CNAME`, `prereq nxrrset ${mark}. TXT`]
        : [`prereq yxrrset ${mark}. IN TXT ${quoted(owner)}`];
    const updates = values.map((value) =>
      kind === 'remove'
        ? `update delete ${name}. ${type} ${plain(value, type)}`
        : `update add ${name}. ${ttlS} ${type} ${plain(value, type)}`,
    );
    if (kind === 'create') updates.push(`update add ${mark}. ${ttlS} TXT ${quoted(owner)}`);
    if (kind === 'remove' && last) updates.push(`update delete ${mark}. TXT ${quoted(owner)}`);
    await this.#update([...prerequisites, ...updates], signal);
  }

  async mark({ name, type, ttlS, from, to }: MarkChange, signal: AbortSignal): Promise<void> {
    const mark = markName(name, type);
    const had =
      from === undefined ? `prereq nxrrset ${mark}. TXT` : `prereq yxrrset ${mark}. IN TXT ${quoted(from)}`;
    await this.#update(
      [
        `prereq yxrrset ${plainName(name)}. ${type}`,
        had,
        ...(from === undefined ? [] : [`update delete ${mark}. TXT ${quoted(from)}`]),
        ...(to === undefined ? [] : [`update add ${mark}. ${ttlS} TXT ${quoted(to)}`]),
      ],
      signal,
    );
  }

  /** Each value has a mark of its own, so that others may stand beside it. */
  async #changeTexts(
    { kind, name, values, ttlS }: DnsChange,
    mark: string,
    owner: string,
    signal: AbortSignal,
  ): Promise<void> {
    const texts = values.flatMap((value) => [
      { at: plainName(name), text: quoted(value) },
      { at: mark, text: quoted(`${owner}:${value}`) },
    ]);
    const lines = texts.map(({ at, text }) =>
      kind === 'remove' ? `update delete ${at}. TXT ${text}` : `update add ${at}. ${ttlS} TXT ${text}`,
    );
    // BIND takes an addition beside a CNAME and ignores it (RFC 2136 section 3.4.2.2).
    await this.#update(
      [...(kind === 'remove' ? [] : [`prereq nxrrset ${plainName(name)}. CNAME`]), ...lines],
      signal,
    );
  }

  async #update(lines: readonly string[], signal: AbortSignal): Promise<void> {
    const { zone, server, port = 53, keyFile } = this.#options;
    const input = [`server ${server} ${port}`, `zone ${zone}.`, ...lines, 'send', ''].join('\n');
    const { code, stdout, stderr } = await runCommand('nsupdate', ['-t', '10', '-k', keyFile], {
      timeoutMs: TIMEOUT_MS,
      signal,
      input,
      missingNext: MISSING,
    });
    if (code !== 0) throw refusal(`${stdout}\n${stderr}`, server, zone);
  }
}

function markName(name: string, type: string): string {
  return `_bornemisza-${type.toLowerCase()}.${plainName(name)}`;
}

/** The answer section of dig(1): `NAME TTL IN TYPE VALUE`. */
function parseZone(text: string): ZoneRecord[] {
  return text.split('\n').flatMap((line) => {
    const found = /^(\S+)\.\s+(\d+)\s+IN\s+(\S+)\s+(.+)$/.exec(line);
    if (found === null) return [];
    const [, name = '', ttl = '', type = '', data = ''] = found;
    const value = type === 'SRV' || type === 'CNAME' ? data.replace(/\.$/, '').toLowerCase() : data;
    return [{ name: name.toLowerCase(), type, value, ttlS: Number(ttl), owner: undefined }];
  });
}

/**
 * Gives each record the owner in the TXT beside its set; two different ones count as none. The marks of TXT records are
 * `OWNER:VALUE`, one for each value.
 */
function withMarks(records: readonly ZoneRecord[]): ZoneRecord[] {
  return records.map((record) => {
    const marks = records.filter(
      ({ name, type }) =>
        type === 'TXT' && name === `_bornemisza-${record.type.toLowerCase()}.${record.name}`,
    );
    const [mark] = marks;
    if (record.type === 'TXT') {
      const [own] = marks.filter((each) => unquoted(each.value).endsWith(`:${unquoted(record.value)}`));
      return own === undefined ? record : { ...record, owner: unquoted(own.value).replace(/:.*/, '') };
    }
    return marks.length === 1 && mark !== undefined ? { ...record, owner: unquoted(mark.value) } : record;
  });
}

/** A name that cannot end its line of nsupdate's input. */
function plainName(name: string): string {
  if (!/^[a-z0-9_*]([a-z0-9_.-]{0,251}[a-z0-9])?$/i.test(name)) throw valueRefused(name);
  return name;
}

function plain(value: string, type: string): string {
  if (type === 'SRV') {
    const found = /^(\d{1,5}) (\d{1,5}) (\d{1,5}) (\S+)$/.exec(value);
    if (found === null) throw valueRefused(value);
    return `${found[1]} ${found[2]} ${found[3]} ${plainName(found[4] ?? '')}.`;
  }
  if (isIP(value) !== (type === 'A' ? 4 : 6)) throw valueRefused(value);
  return value;
}

function quoted(text: string): string {
  if (!/^[A-Za-z0-9_:.-]{1,255}$/.test(text)) throw valueRefused(text);
  return `"${text}"`;
}

function valueRefused(value: string): PluginError {
  return new PluginError({
    code: 'dns-value-refused',
    message: `${JSON.stringify(value.slice(0, 80))} is not valid in a DNS record; nothing is changed`,
    next: 'correct it under [dns] and run `bornemisza config check`',
    outcome: 'terminal',
  });
}

/** The exit code of nsupdate is always 2 on failure: its message says why. */
function refusal(words: string, server: string, zone: string): PluginError {
  const said =
    words
      .trim()
      .split('\n')
      .find((line) => line.trim() !== '')
      ?.trim()
      .slice(0, 200) ?? 'no answer';
  const make = (code: string, message: string, next: string, outcome: 'retry' | 'terminal') =>
    new PluginError({ code, message, next, outcome, keepsChanges: true });
  if (/BADSIG|BADKEY|BADTIME|tsig (verify|indicates)|could not read key/i.test(words))
    return make(
      'dns-key',
      `${server} refuses the key of ${zone}: ${said}; the records are not updated`,
      'compare the key file with the server’s, and the clock: TSIG allows 300 s (`timedatectl`)',
      'retry',
    );
  if (/YXRRSET|NXRRSET|YXDOMAIN|NXDOMAIN/.test(words))
    return make(
      'dns-changed',
      `a record of ${zone} changed while it was written (${said}); nothing is changed`,
      'wait: the zone is read again',
      'retry',
    );
  if (/REFUSED|NOTAUTH|Transfer failed|NOTZONE|SERVFAIL/.test(words))
    return make(
      'dns-refused',
      `${server} does not allow this key to transfer and update ${zone}: ${said}`,
      'allow-transfer by the key, and `grant KEY subdomain ZONE A AAAA SRV TXT` in update-policy',
      'retry',
    );
  return make(
    'dns-unreachable',
    `${server} does not answer about ${zone}: ${said}; the records are not updated`,
    `ask it by hand: dig @${server} ${zone} SOA`,
    'retry',
  );
}
