import { runCommand } from '../../host/command.ts';
import { PluginError } from '../contract.ts';
import { type Assignment, type FloatingProvider, notAnswering } from './provider.ts';

const TIMEOUT_MS = 20_000;
const ID = /^[\w:.-]{1,36}$/;
const MOST_SAID = 120;

/**
 * The operator's program: `PROGRAM show ADDRESS ID` prints the server that has the address, or nothing if none has it;
 * `PROGRAM assign ADDRESS ID` assigns it to this one. Any status but 0 means unknown.
 */
export class Command implements FloatingProvider {
  readonly label: string;
  readonly #argv: readonly string[];
  readonly #serverId: string;

  /** @param argv the program and its first arguments */
  constructor(argv: readonly string[], serverId: string) {
    this.#argv = argv;
    this.#serverId = serverId;
    this.label = argv[0] ?? '';
  }

  /** Each is a process. */
  callsFor(addresses: readonly string[]): number {
    return addresses.length;
  }

  async self(): Promise<string> {
    return this.#serverId;
  }

  async look(
    addresses: readonly string[],
    self: string,
    signal: AbortSignal,
  ): Promise<Map<string, Assignment>> {
    const seen = new Map<string, Assignment>();
    for (const address of addresses) {
      const said = (await this.#run('show', address, self, signal)).trim();
      if (said !== '' && !ID.test(said))
        throw notAnswering(this.label, 'it printed something that is not an ID');
      seen.set(address, { to: said === '' ? undefined : said, busy: false });
    }
    return seen;
  }

  async assign(address: string, self: string, signal: AbortSignal): Promise<void> {
    await this.#run('assign', address, self, signal);
  }

  async #run(verb: string, address: string, self: string, signal: AbortSignal): Promise<string> {
    const [program = '', ...first] = this.#argv;
    const args = [...first, verb, address, self];
    const { code, stdout, stderr } = await runCommand(program, args, { timeoutMs: TIMEOUT_MS, signal }).catch(
      (error: unknown) => {
        throw notAnswering(this.label, error instanceof PluginError ? error.message : String(error));
      },
    );
    if (code === 0) return stdout;
    const words = stderr.replaceAll(/[^\x20-\x7e]+/g, ' ').trim();
    throw notAnswering(this.label, `\`${verb}\` ended with ${code}: ${words.slice(0, MOST_SAID)}`);
  }
}
