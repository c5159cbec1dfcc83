/**
 * Programs that SELinux puts into a domain of their own where cloud-init runs this command: EL's policy has
 * `cloud_init_t → ifconfig_t` for ip. The kernel closes what that domain may not use, and Node's pipes are sockets,
 * which it may not: ip would print into nothing and end well.
 */
const OWN_DOMAIN: ReadonlySet<string> = new Set(['ip']);

/** The shell's own pipe is one, and each domain may write into it. Empty lines at the end are lost. */
const BY_PIPE = 'out=$("$0" "$@") || exit; printf "%s\\n" "$out"';

/** What to run for a program, such that its standard output arrives; its exit code stays. */
export function withPipe(program: string, args: readonly string[]): readonly [string, readonly string[]] {
  return OWN_DOMAIN.has(program) ? byPipe(program, args) : [program, args];
}

export function byPipe(program: string, args: readonly string[]): readonly [string, readonly string[]] {
  return ['sh', ['-c', BY_PIPE, program, ...args]];
}
