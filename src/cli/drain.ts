import { setTimeout as sleep } from 'node:timers/promises';
import type { EndRequest, StatusAnswer, HaproxyTraffic } from '../daemon/control/api.ts';
import type { ControlClient } from './client.ts';
import { formatDuration } from './duration.ts';
import { CliFailure, EXIT } from './failure.ts';
import type { Io } from './io.ts';

const EVERY_MS = 500;
/** The others learn of it in some milliseconds; the second check sees what they send until then. */
const QUIET_LOOKS = 2;
/** Whose work it is to send nothing new here. */
const TRAFFIC_PROGRAMS: readonly string[] = ['haproxy', 'bird', 'layer2'];

interface DrainOptions {
  readonly json?: boolean;
  readonly timeoutMs: number;
}

/**
 * Waits until no request is under way at this node's HAProxy, and says what remains as it changes. With `json` one
 * object a line. What lasts (web sockets, event streams) is ended in the second half of the time, one after another.
 *
 * @throws CliFailure `drain-timeout` with what remains
 */
export async function waitDrained(io: Io, daemon: ControlClient, options: DrainOptions): Promise<void> {
  const { json = false, timeoutMs } = options;
  const startMs = performance.now();
  let told = '';
  for (let quiet = 0; ; ) {
    const { traffic, waits } = await look(daemon);
    quiet = waits === '' && traffic?.requests === 0 ? quiet + 1 : 0;
    const left = `${waits}${traffic?.summary ?? ''}`;
    const drained = quiet >= QUIET_LOOKS;
    const what = drained ? `drained: ${left}` : `draining: ${left}`;
    if (what !== told)
      io.stdout.write(json ? `${JSON.stringify({ message: what, drained, traffic })}\n` : `${what}\n`);
    told = what;
    if (drained) return;
    if (performance.now() - startMs + EVERY_MS > timeoutMs)
      throw new CliFailure(
        EXIT.failure,
        'drain-timeout',
        `not drained within ${formatDuration(timeoutMs)}: ${left}`,
        'wait longer: bornemisza maintenance on --wait --timeout 15m; or go on, and what is left is cut when ' +
          'HAProxy ends',
      );
    const leftMs = timeoutMs - (performance.now() - startMs);
    if (waits === '' && leftMs < timeoutMs / 2)
      await daemon.post('/v1/traffic/end', { share: shareNow(leftMs, EVERY_MS) } satisfies EndRequest);
    await sleep(EVERY_MS);
  }
}

/** Of what is still open, so that the last one ends shortly before the time does. */
const shareNow = (leftMs: number, stepMs: number): number => 1 / Math.max(1, Math.floor(leftMs / stepMs) - 2);

/**
 * @returns what goes through HAProxy now, and why more may come; '' where nothing new is sent here. A busy HAProxy that
 *   gives no answer in time is asked again.
 */
async function look(daemon: ControlClient): Promise<{ traffic?: HaproxyTraffic | undefined; waits: string }> {
  const status = await daemon.get<StatusAnswer>('/v1/status');
  const traffic = await daemon.get<HaproxyTraffic>('/v1/traffic').catch((error: unknown) => {
    if (error instanceof CliFailure && error.code === 'haproxy-silent') return undefined;
    throw error;
  });
  if (traffic === undefined) return { waits: 'HAProxy did not answer in time' };
  const late = status.plugins.find(
    ({ name, state }) => TRAFFIC_PROGRAMS.includes(name) && state !== 'converged',
  );
  if (late !== undefined) return { traffic, waits: `${late.name} is ${late.state}; ` };
  return { traffic, waits: status.announcing === true ? 'the floating IPs are still announced; ' : '' };
}
