import { join } from 'node:path';
import { PluginError } from '../contract.ts';
import { ask, askAll, type AskOptions } from './runtime.ts';
import { VOUCH } from './rendered.ts';

/** The two sockets of one instance: its master's, and the statistics' of its worker. */
export class Sockets {
  readonly unit: string;
  readonly stats: string;
  readonly master: string;

  constructor(instance: 'app' | 'db', runDirectory: string) {
    this.unit = `bornemisza-haproxy@${instance}.service`;
    this.stats = join(runDirectory, 'stats.sock');
    this.master = join(runDirectory, 'master.sock');
  }

  ask(command: string, signal: AbortSignal, timeoutMs?: number): Promise<string> {
    return ask(this.stats, command, {
      unit: this.unit,
      signal,
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
  }

  askAll(commands: readonly string[], signal: AbortSignal, timeoutMs?: number): Promise<string[]> {
    return askAll(this.stats, commands, {
      unit: this.unit,
      signal,
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
  }

  askMaster(command: string, options: Omit<AskOptions, 'unit'>): Promise<string> {
    return ask(this.master, command, { unit: this.unit, ...options });
  }

  /** @param payload see {@link AskOptions} */
  give(command: string, payload: string, signal: AbortSignal): Promise<string> {
    return ask(this.stats, command, { unit: this.unit, signal, payload });
  }

  /** These commands say nothing when all is well. */
  async tell(command: string, signal: AbortSignal): Promise<void> {
    const answer = await this.ask(command, signal);
    if (answer !== '') throw refusedCommand(command, answer);
  }

  /** Whatever it answers: a process of before the first reload knows no such table. */
  async vouch(signal: AbortSignal): Promise<void> {
    await this.ask(VOUCH, signal, 1000);
  }
}

function refusedCommand(command: string, answer: string): PluginError {
  return new PluginError({
    code: 'haproxy-command-refused',
    message: `HAProxy refuses \`${command}\`: ${answer.split('\n')[0]?.slice(0, 200)}`,
    next: 'it is tried again; if it stays, see `bornemisza doctor`',
    outcome: 'retry',
  });
}
