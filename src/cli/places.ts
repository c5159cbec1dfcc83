import type { Role } from '../daemon/membership/types.ts';

export const ROLES: readonly Role[] = ['app', 'db'];

/**
 * The two paths that every command needs. `pathsFor` in the daemon's config.ts is the source, and a test compares
 * them; importing it would load the whole schema library before `bornemisza status` prints anything.
 */
export function controlSocketOf(role: Role, root = ''): string {
  return `${root}/run/bornemisza/${role}/control.sock`;
}

/** What an instance remembers of itself, for the daemon's user alone. */
export function memoryOf(role: Role, root = ''): string {
  return `${root}/var/lib/bornemisza/${role}/local.json`;
}

export function configOf(role: Role, root = ''): string {
  return `${root}/etc/bornemisza/${role}.toml`;
}
