import type { Io } from './io.ts';
import { run } from './main.ts';
import { processIo } from './process-io.ts';

/** Runs the command line of this process, and leaves its exit code in `process.exitCode`. */
export async function runProcess(startDaemon: Io['startDaemon']): Promise<void> {
  const code = await run(process.argv.slice(2), processIo(startDaemon));
  if (code !== 0) process.exitCode = code;
}
