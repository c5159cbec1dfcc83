#!/usr/bin/env node
/**
 * The program: hands over to one of three parts. Each is bundled as a file of its own (scripts/bundle.ts), so that a
 * command reads nothing of the daemon.
 */
import type { Io } from './cli/io.ts';

const [word, ...rest] = process.argv.slice(2);

const startDaemon: Io['startDaemon'] = async (argv) => {
  const { runDaemon } = await import('./daemon/main.ts');
  await runDaemon(argv);
};

if (word === 'daemon' && !rest.some((each) => each === '--help' || each === '-h')) {
  await startDaemon(rest);
} else if (word === 'state-task') {
  const { runStateTask } = await import('./cli/setup/state-task.ts');
  await runStateTask();
} else {
  const { runProcess } = await import('./cli/process.ts');
  await runProcess(startDaemon);
}
