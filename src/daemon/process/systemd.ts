import { spawn } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';

/**
 * systemd-notify waits until process 1 has read its message. On a busy machine that takes seconds, and can exceed the
 * limit of one call.
 */
const CALL_TIMEOUT_MS = 10_000;
/** In total less than the unit's TimeoutStartSec. */
const READY_CALLS = 8;
const READY_PAUSE_MS = 1000;

/** Notifications to the service manager. Every call is best effort: a lost notification must not stop the daemon. */
export interface ServiceManager {
  /** Repeated until it arrives: without it systemd ends a healthy daemon. */
  ready(status: string): Promise<void>;
  status(text: string): Promise<void>;
  reloading(): Promise<void>;
  stopping(status: string): Promise<void>;
  watchdog(): Promise<void>;
  /** The watchdog interval that systemd requests, in ms; undefined: none. */
  readonly watchdogIntervalMs: number | undefined;
}

/**
 * Uses sd_notify(3) through systemd-notify(1), since Node has no datagram Unix sockets. Without NOTIFY_SOCKET (started
 * by hand) every call does nothing.
 */
export function serviceManager(
  environment: NodeJS.ProcessEnv,
  onError: (error: Error) => void,
): ServiceManager {
  const active = environment['NOTIFY_SOCKET'] !== undefined;
  const watchdogMicroseconds = Number(environment['WATCHDOG_USEC'] ?? 0);
  const guarded = async (call: () => Promise<unknown>): Promise<void> => {
    if (!active) return;
    try {
      await call();
    } catch (error) {
      onError(error instanceof Error ? error : new Error(String(error)));
    }
  };
  return {
    ready: (status) => guarded(() => insist(['READY=1', `STATUS=${status}`])),
    status: (status) => guarded(() => tell([`STATUS=${status}`])),
    reloading: () => guarded(() => tell(['RELOADING=1'])),
    stopping: (status) => guarded(() => tell(['STOPPING=1', `STATUS=${status}`])),
    watchdog: () => guarded(() => tell(['WATCHDOG=1'])),
    // sd_watchdog_enabled(3) recommends half of the interval; a third leaves room for one lost sign.
    watchdogIntervalMs: active && watchdogMicroseconds > 0 ? watchdogMicroseconds / 3000 : undefined,
  };
}

/** @throws Error of the last call */
async function insist(assignments: readonly string[]): Promise<void> {
  for (let calls = 1; ; calls += 1) {
    try {
      return await tell(assignments);
    } catch (error) {
      if (calls === READY_CALLS || (error as NodeJS.ErrnoException).code === 'ENOENT') throw error;
    }
    await pause(READY_PAUSE_MS);
  }
}

function tell(assignments: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('systemd-notify', [`--pid=${process.pid}`, ...assignments], {
      stdio: 'ignore',
      timeout: CALL_TIMEOUT_MS,
    });
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`systemd-notify ended with code ${code}`)),
    );
  });
}
