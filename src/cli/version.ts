export { VERSION } from '../daemon/version.ts';
