import { randomUUID } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../host/command.ts';

/** HAProxy's own metrics for Prometheus, in a frontend. */
export const EXPORTER = 'http-request use-service prometheus-exporter if { path /metrics }';

/** Without it, an old worker may close a kept-alive connection under the client's next request, during a reload. */
export const IDLE_CLOSE = 'option idle-close-on-response';

/**
 * Optional lines that old releases of HAProxy do not know. What a release knows depends on its patches, so `haproxy -c`
 * checks each line, and no version is compared.
 */
export const OPTIONAL_LINES: readonly string[] = [
  IDLE_CLOSE,
  // Depends on the build: Debian's and EL's have it, another one may not.
  EXPORTER,
];

/** `haproxy -c` takes 20 ms; a loaded machine may take long. */
const PROBE_TIMEOUT_MS = 15_000;

/** The optional lines that this machine's HAProxy refuses; undefined where it cannot be asked. */
export async function refusedLines(
  binary: string,
  directory: string,
  signal: AbortSignal,
): Promise<ReadonlySet<string> | undefined> {
  const refused = new Set<string>();
  const path = join(directory, `.probe-${randomUUID()}.cfg`);
  try {
    for (const line of OPTIONAL_LINES) {
      await writeFile(path, probeOf(line), { mode: 0o640, flag: 'wx' });
      const { code } = await runCommand(binary, ['-c', '-f', path], { timeoutMs: PROBE_TIMEOUT_MS, signal });
      if (code !== 0) refused.add(line);
      await rm(path, { force: true });
    }
    return refused;
  } catch {
    // A missing program and a full disk are reported where the configuration itself is checked and written.
    return undefined;
  } finally {
    await rm(path, { force: true }).catch(() => undefined);
  }
}

/** Complete but for the line: so a refusal is about the line. Nothing listens: `-c` opens no socket. */
function probeOf(line: string): string {
  const inFrontend = line.startsWith('http-request ');
  return `defaults
  mode http
  timeout connect 1s
  timeout client 1s
  timeout server 1s
  ${inFrontend ? '' : line}
frontend probe
  bind 127.0.0.1:1
  ${inFrontend ? line : ''}
`;
}
