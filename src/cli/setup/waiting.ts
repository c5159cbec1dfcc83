import { setTimeout as sleep } from 'node:timers/promises';
import { hasNextStep } from '../../daemon/errors.ts';
import type { Io } from '../io.ts';

/** One check of the devices starts three short processes. */
const EVERY_MS = 1000;

/** What can still be missing on a machine that boots: the private device, its routes, a route to the issuer. */
const COMES_LATE = new Set([
  'private-address-absent',
  'private-address-unsure',
  'private-network-unknown',
  'address-not-here',
  'device-not-here',
  'issuer-unreachable',
  // A machine that boots is busy.
  'program-no-answer',
]);

/**
 * Tries again while what is missing can still appear, and prints once what it waits for.
 *
 * @param endMs wall time; undefined: one try
 */
export async function waitingFor<T>(
  io: Io,
  endMs: number | undefined,
  attempt: () => Promise<T>,
): Promise<T> {
  let said = '';
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      const mayCome = endMs !== undefined && hasNextStep(error) && COMES_LATE.has(error.code);
      if (!mayCome || Date.now() + EVERY_MS > endMs) throw error;
      if (error.message !== said) io.stderr.write(`waiting: ${error.message}\n`);
      said = error.message;
    }
    await sleep(EVERY_MS);
  }
}
