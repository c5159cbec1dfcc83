import { createPrivateKey } from 'node:crypto';
import { createInterface } from 'node:readline';
import type { Admitted, Goodbye } from '../../src/daemon/membership/types.ts';
import { DEFAULT_TIMING } from '../../src/daemon/transport/transport.ts';
import { makeDriver } from '../unit/driver/drivers.ts';

/**
 * One member in a process of its own, for transport.test.ts: first line of standard input is what the host keeps
 * (`NodeInit` as JSON), each further line a command. Prints the view at each change, as JSON, one a line.
 */
export interface NodeInit {
  readonly keyPem: string;
  readonly self: Admitted;
  readonly directory: string;
  readonly roster: readonly Admitted[];
  readonly founder: boolean;
}
export interface Seen {
  readonly synced: boolean;
  readonly members: Readonly<Record<string, { state: string; restarting: boolean; incarnation: number }>>;
}
export type Command = 'leave' | 'departed' | 'close' | `goodbye ${Goodbye}`;

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
process.stdout.write(`${JSON.stringify({ synced: false, members: {} } satisfies Seen)}\n`);
const init = JSON.parse((await lines.next()).value as string) as NodeInit;
const host = { key: createPrivateKey(init.keyPem), self: init.self, directory: init.directory };
const node = makeDriver({ teardown: () => undefined }, host, init.roster, {
  founder: init.founder,
  links: DEFAULT_TIMING,
});

function print(): void {
  const { view } = node.driver;
  const members = view.members.map(({ record, state, restarting }) => [
    record.name,
    { state, restarting, incarnation: record.incarnation },
  ]);
  process.stdout.write(`${JSON.stringify({ synced: view.synced, members: Object.fromEntries(members) })}\n`);
}

node.driver.onChange(print);
await node.driver.start();
print();
for (let line = await lines.next(); line.done !== true; line = await lines.next()) {
  const [verb, kind] = line.value.split(' ') as [string, Goodbye];
  if (verb === 'leave') node.driver.leave();
  else if (verb === 'departed') node.driver.departed();
  else if (verb === 'goodbye') node.driver.goodbye(kind);
  else break;
}
await node.driver.close();
process.exit(0);
