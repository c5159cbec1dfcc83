import { type Command, InvalidArgumentError } from 'commander';
import type { Io } from '../io.ts';
import { addVerb } from '../verb.ts';

export function addSite(program: Command, io: Io): void {
  addVerb(program, 'site', {
    summary: 'serve a directory of static files on 127.0.0.1',
    description:
      'Serves a directory of static files on 127.0.0.1, behind HAProxy. bornemisza-site.service runs it. ' +
      'Changed files are served at once. `/` answers 200 even if the directory is empty.',
    examples: ['bornemisza site --root /srv/bornemisza/site --port 8080'],
    root: false,
  })
    .requiredOption('--root <dir>', 'directory with index.html')
    .option('--port <number>', 'port on 127.0.0.1', portNumber, 8080)
    .action(async (options: { root: string; port: number }) => {
      const { serveSite } = await import('../site.ts');
      const site = await serveSite(options.root, options.port, (message) => io.stderr.write(`${message}\n`));
      io.stdout.write(`serving ${options.root} on http://127.0.0.1:${site.port}\n`);
      await stopSignal();
      await site.close();
    });
}

function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
}

function portNumber(text: string): number {
  const port = Number(text);
  // 0: any free port, for tests.
  if (!/^\d{1,5}$/.test(text) || port > 65535)
    throw new InvalidArgumentError('It must be a port, 1 to 65535.');
  return port;
}
