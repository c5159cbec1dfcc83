/** The program: the one file that is bundled. The daemon and the command load nothing of each other. */
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
  const [{ run }, { processIo }] = await Promise.all([
    import('./cli/main.ts'),
    import('./cli/process-io.ts'),
  ]);
  const code = await run(process.argv.slice(2), processIo(startDaemon));
  if (code !== 0) process.exitCode = code;
}
