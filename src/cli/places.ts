import type { Role } from '../daemon/membership/types.ts';

export const ROLES: readonly Role[] = ['app', 'db'];

/**
 * The two paths that every command needs. `pathsFor` in the daemon's config.ts is the authority, and a test holds
 * these to it; importing it would load the whole schema library before `bornemisza status` prints a word.
 */
export function controlSocketOf(role: Role, root = ''): string {
  return `${root}/run/bornemisza/${role}/control.sock`;
}

export function configOf(role: Role, root = ''): string {
  return `${root}/etc/bornemisza/${role}.toml`;
}
