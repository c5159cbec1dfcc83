/** One version for the daemon and the command. */
export { VERSION } from '../daemon/version.ts';
