import type { ComponentLogger, Logger } from '@libp2p/interface';

/** libp2p's own logs are for its developers; operators get our events. It also saves the formatting. */
export const quietLogger: ComponentLogger = { forComponent: () => quiet };

const nothing = (): void => undefined;
const quiet: Logger = Object.assign(nothing, {
  error: nothing,
  trace: nothing,
  enabled: false,
  newScope: () => quiet,
});
