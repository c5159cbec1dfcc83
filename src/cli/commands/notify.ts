import type { Command } from 'commander';
import type { Progress } from '../../daemon/control/api.ts';
import { exitOfRefusal } from '../client.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { daemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

export function addNotify(program: Command, io: Io): void {
  const notify = addVerb(program, 'notify', { summary: 'notifications to people', root: false });
  addVerb(notify, 'test', {
    summary: 'send a test by every channel that [notify] names',
    description:
      'Sends a test from this node by each channel that [notify] of its configuration names (mail, webhook, ' +
      'command), without the rate limit, and prints each result. Each node uses its own configuration, so ' +
      'test on each node. With --json it prints one object a line (ndjson).',
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
  // A channel that failed is one line; the last line is the result of all.
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
    'the daemon ended before every channel was tried',
    `systemctl status bornemisza@${daemon.role}, then run \`bornemisza notify test\` again`,
  );
}
