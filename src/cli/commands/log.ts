import { Argument, type Command, InvalidArgumentError, Option } from 'commander';
import {
  type Done,
  REQUEST_LOG_LEAST_MS,
  REQUEST_LOG_MOST_MS,
  type RequestLogRequest,
} from '../../daemon/control/api.ts';
import { printDone } from '../answer.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { appDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { addVerb, type CommonOptions } from '../verb.ts';
import { duration } from './wait.ts';

interface LogOptions extends CommonOptions {
  readonly for?: number;
}

export function addLog(program: Command, io: Io): void {
  const log = addVerb(program, 'log', { summary: 'what HAProxy writes to the journal', root: false });
  addVerb(log, 'requests', {
    summary: 'log every request at this edge for a while, or stop it',
    description:
      'Has HAProxy of this app node write one line of JSON to the journal for every request of a visitor: time, ' +
      'client, method, host, path without the query, status, bytes, duration, backend and server. It writes at ' +
      'most 100 lines a second; "n" counts all requests, so a gap shows what was left out. It ends by itself after ' +
      'an hour, or after --for (1m to 7d), and survives restarts. Without it only failed requests are logged. No ' +
      'connection is cut.',
    examples: [
      'bornemisza log requests on',
      'bornemisza log requests on --for 10m',
      'journalctl -u bornemisza-haproxy@app -o cat -f',
      'bornemisza log requests off',
    ],
    json: true,
  })
    .addArgument(new Argument('<state>', 'on or off').choices(['on', 'off']))
    .addOption(new Option('--for <duration>', 'with on: how long, e.g. 10m (default: 1h)').argParser(period))
    .action(async (state: 'on' | 'off', options: LogOptions) => {
      const on = state === 'on';
      if (!on && options.for !== undefined)
        throw new CliFailure(
          EXIT.usage,
          'log-for-off',
          '--for belongs to `log requests on`',
          'bornemisza log requests off',
        );
      const request: RequestLogRequest = on ? { on, forMs: options.for } : { on };
      printDone(io, options, await (await appDaemonOf(options)).post<Done>('/v1/log/requests', request));
    });
}

function period(text: string): number {
  const ms = duration(text);
  if (ms < REQUEST_LOG_LEAST_MS || ms > REQUEST_LOG_MOST_MS)
    throw new InvalidArgumentError('It must be a duration from 1m to 7d, e.g. 30m.');
  return ms;
}
