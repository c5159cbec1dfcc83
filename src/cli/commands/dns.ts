import { type Command, InvalidArgumentError } from 'commander';
import type { DnsAnswer, Done } from '../../daemon/control/api.ts';
import { printDone, printJson } from '../answer.ts';
import { appDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor } from '../paint.ts';
import { renderTable, wrap } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

/** A provider that answers slowly does so within 15 s a call. */
const TIMEOUT_MS = 45_000;
const TYPES = ['A', 'AAAA', 'SRV'] as const;

export function addDns(program: Command, io: Io): void {
  const dns = addVerb(program, 'dns', { summary: 'the DNS records that follow the cluster', root: false });
  addVerb(dns, 'show', {
    summary: 'show each record that is wanted, what stands there, and whose it is',
    description:
      'Reads the zone now, and shows each set of records that the cluster wants or has marked as its own, ' +
      'what stands there, and what keeps it from being changed. Run it on an app node that has [dns].',
    examples: [
      'bornemisza dns show',
      "bornemisza dns show --json | jq -r '.sets[] | select(.wanted != .present).name'",
    ],
    json: true,
  }).action(async (options: CommonOptions) => {
    const answer = await (await appDaemonOf(options)).get<DnsAnswer>('/v1/dns', TIMEOUT_MS);
    if (options.json === true) printJson(io, answer);
    else io.stdout.write(renderDns(answer, paintFor(io.stdout), io.stdout.columns));
  });
  addMarking(dns, io, 'adopt', {
    summary: 'give a record of yours to the cluster, which keeps it from then on',
    description:
      'Marks the records of one type at one name as the cluster’s: from then on their values follow the ' +
      'members. For a record that you made by hand before, and after the cluster got another name. Only what ' +
      '`dns show` lists as wanted is taken; at Cloudflare the mark takes the place of the record’s comment.',
    examples: ['bornemisza dns adopt shop.example A'],
  });
  addMarking(dns, io, 'release', {
    summary: 'take a record back from the cluster; it stays as it is',
    description:
      'Takes the mark off the records of one type at one name. They stay as they are and are yours: nothing ' +
      'changes them until `dns adopt`.',
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
  none: 'not there',
} as const;

function renderDns({ zone, writer, sets, findings }: DnsAnswer, paint: Paint, columns: number): string {
  const list = (values: readonly string[]): string => values.join(', ') || '-';
  const rows = sets.map(({ name, type, wanted, present, whose }) => {
    const same = list(wanted) === list(present);
    return [
      name,
      type,
      paint(same ? 'green' : 'yellow', WHOSE[whose]),
      list(wanted),
      same ? 'so it is' : list(present),
    ];
  });
  const head = ['NAME', 'TYPE', 'WHOSE', 'WANTED', 'IN THE ZONE'];
  return [
    `zone ${zone}; ${writer}\n\n`,
    renderTable(head, rows, { columns, paint }),
    ...findings.map(
      ({ code, message, next }) =>
        `\n${wrap(`${paint('yellow', '!')} ${message} (${code}) -- ${next}`, columns)}`,
    ),
  ].join('');
}
