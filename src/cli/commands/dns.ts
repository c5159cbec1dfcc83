import { type Command, InvalidArgumentError } from 'commander';
import type { DnsShown, Done } from '../../daemon/control/api.ts';
import { printDone, printJson } from '../answer.ts';
import { appDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor } from '../paint.ts';
import { renderTable, wrap } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

/** A slow provider answers within 15 s a call. */
const TIMEOUT_MS = 45_000;
const TYPES = ['A', 'AAAA', 'SRV'] as const;

export function addDns(program: Command, io: Io): void {
  const dns = addVerb(program, 'dns', { summary: 'the DNS records that follow the cluster', root: false });
  addVerb(dns, 'show', {
    summary: 'show each wanted record, what the zone has, and who owns it',
    description:
      'Reads the zone now and shows each set of records that the cluster wants or owns, what the zone has, ' +
      'and why it is not changed. Run it on an app node that has [dns].',
    examples: [
      'bornemisza dns show',
      "bornemisza dns show --json | jq -r '.sets[] | select(.wanted != .present).name'",
    ],
    json: true,
  }).action(async (options: CommonOptions) => {
    const answer = await (await appDaemonOf(options)).get<DnsShown>('/v1/dns', TIMEOUT_MS);
    if (options.json === true) printJson(io, answer);
    else io.stdout.write(renderDns(answer, paintFor(io.stdout), io.stdout.columns));
  });
  addMarking(dns, io, 'adopt', {
    summary: 'let the cluster manage a record of yours',
    description:
      'Marks the records of one type at one name as the cluster’s: from then on their values follow the ' +
      'members. Use it for a record that you created by hand, and after the cluster got another name. Only ' +
      'records that `dns show` lists as wanted can be adopted. At Cloudflare the mark replaces the comment.',
    examples: ['bornemisza dns adopt shop.example A'],
  });
  addMarking(dns, io, 'release', {
    summary: 'stop managing a record; it stays as it is',
    description:
      'Removes the cluster’s mark from the records of one type at one name. They stay as they are, and the ' +
      'cluster does not change them until `dns adopt`.',
    examples: ['bornemisza dns release www.shop.example A'],
  });
}

function addMarking(
  dns: Command,
  io: Io,
  verb: 'adopt' | 'release',
  facts: { readonly summary: string; readonly description: string; readonly examples: readonly string[] },
): void {
  addVerb(dns, verb, { ...facts, json: true })
    .argument('<name>', 'full name of the record, e.g. shop.example', recordName)
    .argument('<type>', TYPES.join(', '), recordType)
    .action(async (name: string, type: string, options: CommonOptions) => {
      const daemon = await appDaemonOf(options);
      printDone(io, options, await daemon.post<Done>(`/v1/dns/${verb}`, { name, type }, TIMEOUT_MS));
    });
}

function recordName(text: string): string {
  const name = text.toLowerCase().replace(/\.$/, '');
  if (/^[a-z0-9_*][a-z0-9_.-]{0,251}[a-z0-9]$/.test(name)) return name;
  throw new InvalidArgumentError('It must be the full name of a record, e.g. shop.example.');
}

function recordType(text: string): string {
  const type = TYPES.find((each) => each === text.toUpperCase());
  if (type !== undefined) return type;
  throw new InvalidArgumentError(`It must be one of ${TYPES.join(', ')}.`);
}

const WHOSE = {
  ours: 'the cluster’s',
  yours: 'yours',
  another: 'another cluster’s',
  none: 'absent',
} as const;

function renderDns({ zone, writer, sets, findings }: DnsShown, paint: Paint, columns: number): string {
  const list = (values: readonly string[]): string => values.join(', ') || '-';
  const rows = sets.map(({ name, type, wanted, present, whose }) => {
    const same = list(wanted) === list(present);
    return [
      name,
      type,
      paint(same ? 'green' : 'yellow', WHOSE[whose]),
      list(wanted),
      same ? 'as wanted' : list(present),
    ];
  });
  const head = ['NAME', 'TYPE', 'OWNER', 'WANTED', 'IN THE ZONE'];
  return [
    `zone ${zone}; ${writer}\n\n`,
    renderTable(head, rows, { columns, paint }),
    ...findings.map(
      ({ code, message, next }) =>
        `\n${wrap(`${paint('yellow', '!')} ${message} (${code}) -- ${next}`, columns)}`,
    ),
  ].join('');
}
