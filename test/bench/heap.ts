/** With `--expose-gc`: what is really in use, not what waits for the collector. */
export function heapFigures(): { readonly heapBytes: number; readonly handles: number } {
  const { gc } = globalThis;
  gc?.();
  return {
    heapBytes: gc === undefined ? -1 : process.memoryUsage().heapUsed,
    handles: process.getActiveResourcesInfo().length,
  };
}
