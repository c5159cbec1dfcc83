import type { Command } from 'commander';
import type { MembersAnswer, PingAnswer, PingedNode, PortLook } from '../../daemon/control/api.ts';
import { printJson } from '../answer.ts';
import { type PacketSize, packetSizes } from '../doctor/path.ts';
import { formatDuration } from '../duration.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { anyDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { findMember } from '../members.ts';
import { type Paint, paintFor } from '../paint.ts';
import { renderFacts } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

/** Eight nodes at once, each some seconds at most. */
const ANSWER_MS = 120_000;
/** People compare tokens and trails by time; certificates have a day of tolerance. */
const CLOCK_OFF_MS = 2000;

interface Pinged extends PingedNode {
  readonly packets: PacketSize | undefined;
}

export function addPing(program: Command, io: Io): void {
  addVerb(program, 'ping', {
    summary: 'test the network to another node and back',
    description:
      'Tests the private network to another node, or to all others, in both directions: round-trip time, clock ' +
      'difference, packet sizes that arrive, and open ports. Exit code 1 ' +
      'if there is a problem.',
    examples: ['bornemisza ping', 'bornemisza ping db2/db', 'bornemisza ping db2 --json'],
    role: true,
    json: true,
  })
    .argument('[node]', 'HOST/ROLE, HOST if it has one role, address or PeerId')
    .action(async (node: string | undefined, options: CommonOptions) => {
      const pinged = await pingAll(io, node, options);
      if (options.json === true)
        printJson(io, { nodes: pinged.map((each) => ({ ...each, wrong: wrong(each) })) });
      else io.stdout.write(render(pinged, paintFor(io.stdout)));
      const bad = pinged.filter((each) => wrong(each).length > 0);
      const [first] = bad;
      if (first === undefined) return;
      throw new CliFailure(
        EXIT.failure,
        'ping-found',
        `${bad.map(({ name }) => name).join(', ')}: ${wrong(first).join('; ')}`,
        `on both hosts: sudo bornemisza doctor; on the other host: bornemisza ping`,
      );
    });
}

async function pingAll(io: Io, wanted: string | undefined, options: CommonOptions): Promise<Pinged[]> {
  const daemon = await anyDaemonOf(options);
  const { members } = await daemon.get<MembersAnswer>('/v1/members');
  const node = wanted === undefined ? undefined : findMember(members, wanted).name;
  const [{ nodes }, sizes] = await Promise.all([
    daemon.post<PingAnswer>('/v1/ping', { node }, ANSWER_MS),
    packetSizes(
      io.host,
      members.filter((each) => each.self || node === undefined || each.name === node),
    ),
  ]);
  return nodes.map((each) => ({ ...each, packets: sizes.get(each.address) }));
}

/** The problems, as text. */
function wrong({
  problem,
  large,
  clockAheadMs = 0,
  clockSureToMs = 0,
  portsThere,
  portsBack = [],
  packets,
}: Pinged): string[] {
  const closed = (way: string, ports: readonly PortLook[]): string[] =>
    ports
      .filter(({ open }) => !open)
      .map(({ port, what, detail }) => `port ${port} (${what}) ${way}: ${detail}`);
  const short = packets !== undefined && (packets.most ?? 0) < packets.mtu;
  return [
    ...(problem === '' ? [] : [problem]),
    ...closed('there', portsThere),
    ...closed('back', portsBack),
    ...(large?.there === false ? [`a message of ${large.bytes} bytes does not arrive there`] : []),
    ...(large?.back === false ? [`a message of ${large.bytes} bytes does not come back`] : []),
    ...(short && packets.most !== undefined
      ? [`packets above ${packets.most} bytes do not arrive, but ${packets.device} sends ${packets.mtu}`]
      : []),
    ...(Math.abs(clockAheadMs) - clockSureToMs > CLOCK_OFF_MS
      ? [`its clock is ${clockWord(clockAheadMs)}`]
      : []),
  ];
}

function render(nodes: readonly Pinged[], paint: Paint): string {
  if (nodes.length === 0) return 'there is no other node\n';
  return nodes
    .map((each) => {
      const bad = wrong(each);
      const verdict = bad.length === 0 ? paint('green', 'well') : paint('red', bad.join('; '));
      const head = `${paint('bold', each.name)} at ${each.address}, ${each.state}: ${verdict}\n`;
      return head + renderFacts(factsOf(each), paint);
    })
    .join('\n');
}

function factsOf(each: Pinged): (readonly [string, string])[] {
  const { roundTripMs: trip, clockAheadMs, clockSureToMs = 0, large, packets, portsThere, portsBack } = each;
  const yes = (arrives: boolean): string => (arrives ? 'arrives' : 'does NOT arrive');
  return [
    ...(trip === undefined
      ? []
      : [['round trip', `${ms(trip.median)} (${ms(trip.least)} to ${ms(trip.most)})`] as const]),
    ...(clockAheadMs === undefined
      ? []
      : [['clock', `${clockWord(clockAheadMs)}, ± ${clockSureToMs} ms`] as const]),
    ...(packets === undefined ? [] : [['packets', packetWord(packets)] as const]),
    ...(large === undefined
      ? []
      : [
          [
            'large',
            `a message of ${large.bytes} bytes ${yes(large.there)} there, ${yes(large.back)} back`,
          ] as const,
        ]),
    ['ports there', portWords(portsThere)],
    ['ports back', portsBack === undefined ? 'not reported' : portWords(portsBack)],
  ];
}

const ms = (value: number): string => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

function clockWord(aheadMs: number): string {
  const far = formatDuration(Math.abs(aheadMs));
  return aheadMs >= 0 ? `${far} ahead` : `${far} behind`;
}

function packetWord({ device, mtu, most }: PacketSize): string {
  if (most === undefined) return 'unknown: it does not answer ping (iputils)';
  return most >= mtu
    ? `${mtu} bytes arrive, as ${device} sends`
    : `up to ${most} bytes; ${device} sends ${mtu}`;
}

function portWords(ports: readonly PortLook[]): string {
  return ports
    .map(({ port, what, open, detail }) => `${port} ${what} ${open ? 'open' : `closed (${detail})`}`)
    .join(', ');
}
