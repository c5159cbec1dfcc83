import * as z from 'zod';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/config.ts';
import type { MemberRow, PingedNode, PortLook } from '../control/api.ts';
import type { PeerId, Role } from '../membership/types.ts';
import type { Transport } from '../transport/transport.ts';
import { lookAt, portsBetween } from './ports.ts';

/** One request: "what is your time, and do you reach my ports?" */
const PING_PROTOCOL = '/bornemisza/ping/1';
/** More than ten packets of Ethernet, or one jumbo frame and a half. */
export const LARGE_BYTES = 16 * 1024;
/** The rest of the message around the padding. */
const MAX_BYTES = LARGE_BYTES + 4096;
const SMALL = { timeoutMs: 2000, maxBytes: MAX_BYTES };
/** A lost segment is repeated after at least a second; one that never arrives is repeated for minutes. */
const LARGE = { timeoutMs: 4000, maxBytes: MAX_BYTES };
const ROUNDS = 5;
/** How often each member can have this node check that member's own ports. */
const LOOK_AGAIN_MS = 1000;

const question = z.object({
  pad: z.string().max(LARGE_BYTES),
  /** The size of the answer. */
  want: z.int().min(0).max(LARGE_BYTES),
  look: z.boolean(),
});
type Question = z.output<typeof question>;

const answer = z.object({
  wallMs: z.number(),
  pad: z.string().max(LARGE_BYTES),
  ports: z
    .array(
      z.object({
        port: z.int().min(1).max(65_535),
        what: z.string().max(40),
        open: z.boolean(),
        detail: z.string().max(200),
      }),
    )
    .max(16)
    .optional(),
});

/** The members that may be asked, and their ports. */
interface Known {
  readonly role: Role;
  readonly address: string;
  readonly port: number;
}

interface AnswererDependencies {
  readonly clock: Pick<Clock, 'wallMs' | 'monotonicMs'>;
  readonly transport: Pick<Transport, 'handle'>;
  readonly config: () => Config;
  /** Of an admitted member, by its certificate and record. */
  readonly known: (peer: PeerId) => Known | undefined;
}

/**
 * Answers members. It checks only the asking member's address, by its certificate, and the ports of its role: nobody
 * can make this node open connections elsewhere.
 */
export function servePing({ clock, transport, config, known }: AnswererDependencies): void {
  /** When each member was last checked. Bounded by the roster. */
  const lookedMs = new Map<PeerId, number>();
  transport.handle(PING_PROTOCOL, async (from, bytes) => {
    const wallMs = clock.wallMs();
    const { want, look } = question.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
    const asker = look ? known(from) : undefined;
    let ports: PortLook[] | undefined;
    const nowMs = clock.monotonicMs();
    if (asker !== undefined && nowMs - (lookedMs.get(from) ?? Number.NEGATIVE_INFINITY) >= LOOK_AGAIN_MS) {
      lookedMs.set(from, nowMs);
      const own = config();
      ports = await lookAt(asker.address, portsBetween(own.role, asker.role, asker.port, own));
    }
    return Buffer.from(JSON.stringify({ wallMs, pad: 'x'.repeat(want), ports }));
  });
}

interface PingDependencies {
  readonly clock: Pick<Clock, 'wallMs' | 'monotonicMs'>;
  readonly transport: Pick<Transport, 'request' | 'connect'>;
  readonly config: Config;
  /** The port of the other node. */
  readonly port: number;
}

/** Asks one node. Never throws: failures are part of the answer. */
export async function pingNode(
  { name, peerId, address, role, state, version }: MemberRow,
  dependencies: PingDependencies,
): Promise<PingedNode> {
  const { transport, config, port } = dependencies;
  const node = { name, address, state, version };
  const looking = lookAt(address, portsBetween(config.role, role, port, config));
  try {
    await transport.connect(peerId, address, port);
    const rounds = await roundsOf(peerId, dependencies);
    const large = {
      bytes: LARGE_BYTES,
      there: await arrives(transport, peerId, { pad: 'x'.repeat(LARGE_BYTES), want: 0, look: false }),
      back: await arrives(transport, peerId, { pad: '', want: LARGE_BYTES, look: false }),
    };
    const { ports } = await ask(transport, peerId, { pad: '', want: 0, look: true }, LARGE);
    return { ...node, ...rounds, large, portsThere: await looking, portsBack: ports, problem: '' };
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    return { ...node, portsThere: await looking, problem };
  }
}

/** The clock is compared in the fastest round: the error is at most half of its duration. */
async function roundsOf(
  peer: PeerId,
  { transport, clock }: PingDependencies,
): Promise<Required<Pick<PingedNode, 'roundTripMs' | 'clockAheadMs' | 'clockSureToMs'>>> {
  const rounds: { readonly tookMs: number; readonly aheadMs: number }[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const beganMs = clock.monotonicMs();
    const wallMs = clock.wallMs();
    const { wallMs: there } = await ask(transport, peer, { pad: '', want: 0, look: false }, SMALL);
    const tookMs = clock.monotonicMs() - beganMs;
    rounds.push({ tookMs, aheadMs: there - (wallMs + tookMs / 2) });
  }
  rounds.sort((a, b) => a.tookMs - b.tookMs);
  const [least, median, most] = [0, Math.floor(ROUNDS / 2), ROUNDS - 1].map((at) => rounds[at]?.tookMs ?? 0);
  return {
    roundTripMs: { least: least ?? 0, median: median ?? 0, most: most ?? 0 },
    clockAheadMs: Math.round(rounds[0]?.aheadMs ?? 0),
    clockSureToMs: Math.ceil((least ?? 0) / 2),
  };
}

async function arrives(
  transport: PingDependencies['transport'],
  peer: PeerId,
  asked: Question,
): Promise<boolean> {
  try {
    return (await ask(transport, peer, asked, LARGE)).pad.length === asked.want;
  } catch {
    return false;
  }
}

async function ask(
  transport: PingDependencies['transport'],
  peer: PeerId,
  asked: Question,
  limits: typeof SMALL,
): Promise<z.output<typeof answer>> {
  const bytes = await transport.request(peer, PING_PROTOCOL, Buffer.from(JSON.stringify(asked)), limits);
  return answer.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
}
