import type { HaproxyObserved, Running } from './plan.ts';
import { isBeside, isPanic, panicOf } from './rendered.ts';

/** Facts of the running process, one line. */
export function sightOf(running: Running | undefined, old: HaproxyObserved['old']): string {
  if (running === undefined) return 'HAProxy does not answer';
  if (running.structure === '') return 'HAProxy runs a configuration that is not ours';
  const inUse = running.servers.filter((server) => !server.maint && (isPanic(server) || !isBeside(server)));
  const counted = inUse.filter((server) => !isBeside(server));
  const up = counted.filter((server) => server.up).length;
  const panics = new Set(inUse.filter(isPanic).map(({ backend }) => backend.slice(0, -panicOf('').length)));
  const busy = [...panics].filter((backend) => {
    const accepting = inUse.filter((server) => server.backend === panicOf(backend) && server.up).length;
    return accepting > 2 * inUse.filter((server) => server.backend === backend && server.up).length;
  });
  const panic =
    busy.length === 0
      ? ''
      : `; most checks of ${busy.join(', ')} get no answer in time, so every server that accepts connections serves`;
  return `HAProxy answers; ${up} of ${counted.length} servers in use are up${panic}${joins(running)}${leftBehind(old)}`;
}

/** What an operator of HAProxy 2.4 needs to know before a reload surprises him. */
const joins = ({ addsServers }: Running): string =>
  addsServers ? '' : '; it cannot add servers while it runs, so each new member is a reload';

/** A reload ends no connection, but the old process does within 15 minutes; see endings.ts. */
function leftBehind(old: HaproxyObserved['old']): string {
  if (old === undefined || old.processes === 0) return '';
  const [processes, connections] = [old.processes, old.connections];
  return (
    `; ${processes} old process${processes === 1 ? '' : 'es'} ` +
    `(${connections} connection${connections === 1 ? '' : 's'}) ` +
    `end${processes === 1 ? 's' : ''} within 15 minutes, one connection after another`
  );
}
