import type { Command } from 'commander';
import type { Progress } from '../../daemon/control/api.ts';
import { exitOfRefusal } from '../client.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { daemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

export function addNotify(program: Command, io: Io): void {
  const notify = addVerb(program, 'notify', { summary: 'how people are told', root: false });
  addVerb(notify, 'test', {
    summary: 'send a test by every way that [notify] names',
    description:
      'Sends a test from this node by each way that [notify] of its configuration names (mail, webhook, ' +
      'command), whatever the rate limit, and says how each went. Each node sends by its own ' +
      'configuration, so test on each. With --json one object a line (ndjson).',
    examples: ['bornemisza notify test', 'bornemisza notify test --role db --json'],
    role: true,
    json: true,
  }).action(async (options: CommonOptions) => {
    await test(io, options);
  });
}

async function test(io: Io, options: CommonOptions): Promise<void> {
  const daemon = await daemonOf(options);
  const print = (step: Progress): void => {
    const next = step.error === undefined ? '' : `\n  next: ${step.error.next}`;
    io.stdout.write(options.json === true ? `${JSON.stringify(step)}\n` : `${step.message}${next}\n`);
  };
  // A way that failed is one line; the last line says how the whole ended.
  let last: Progress | undefined;
  for await (const step of daemon.lines<Progress>('POST', '/v1/notify/test', {})) {
    if (last !== undefined) print(last);
    last = step;
  }
  if (last?.error !== undefined) {
    const { code, message, next } = last.error;
    throw new CliFailure(exitOfRefusal(code), code, message, next);
  }
  if (last?.done === true) {
    print(last);
    return;
  }
  throw new CliFailure(
    EXIT.failure,
    'notify-test-unfinished',
    'the daemon ended before every way was tried',
    `systemctl status bornemisza@${daemon.role}, then run \`bornemisza notify test\` again`,
  );
}
