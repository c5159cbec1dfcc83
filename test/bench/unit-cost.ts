import type { Host } from '../lab/index.ts';

/** Clock ticks of proc_pid_stat(5). */
const TICK_MS = 10;

/** Of a unit's main process on a host of the lab: CPU time with that of its ended children, and its memory. */
export async function unitCost(
  host: Host,
  unit: string,
): Promise<{ readonly cpuMs: number; readonly rssMb: number }> {
  const { mainPid } = await host.unit(unit);
  const stat = await host.must(['cat', `/proc/${mainPid}/stat`]);
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0);
  const status = await host.must(['cat', `/proc/${mainPid}/status`]);
  return { cpuMs: TICK_MS * ticks, rssMb: Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024 };
}
