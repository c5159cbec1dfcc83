import { getHeapSpaceStatistics } from 'node:v8';

/**
 * Where V8 keeps what it compiles: machine code, and the tables that belong to it. Objects of JavaScript are elsewhere.
 */
const CODE_SPACES = /^(code|trusted)/;

/** With `--expose-gc`: what is really in use, not what waits for the collector. */
export function heapFigures(): {
  readonly heapBytes: number;
  readonly codeBytes: number;
  readonly handles: number;
} {
  const { gc } = globalThis;
  gc?.();
  return {
    heapBytes: gc === undefined ? -1 : process.memoryUsage().heapUsed,
    codeBytes: getHeapSpaceStatistics()
      .filter(({ space_name }) => CODE_SPACES.test(space_name))
      .reduce((sum, { space_used_size }) => sum + space_used_size, 0),
    handles: process.getActiveResourcesInfo().length,
  };
}
