/** What src/bornemisza.ts hands over to, by the name of its bundle: a file beside the entry's that needs no other. */
export const PROGRAM_PARTS = {
  daemon: 'src/daemon/main.ts',
  command: 'src/cli/process.ts',
  'state-task': 'src/cli/setup/state-task.ts',
} as const;
