import type { UsedSnippet } from './snippets.ts';

/**
 * A configuration for `haproxy -c` of snippets without a node: it has what they can name of ours, and no certificate.
 * Nothing listens, since `-c` opens no socket.
 *
 * @param services names of the services, whose backends an edge can use
 */
export function proofOf(services: readonly string[], snippets: readonly UsedSnippet[]): string {
  const backends = ['nothing', ...services.map((name) => `svc_${name}`)];
  return [
    'defaults bornemisza',
    '  mode http',
    ...['connect', 'client', 'server'].map((which) => `  timeout ${which} 1s`),
    'frontend edge',
    '  bind 127.0.0.1:1',
    ...snippets.flatMap(({ edge }) => edge),
    '  default_backend nothing',
    ...backends.map((name) => `backend ${name}`),
    ...snippets.flatMap(({ sections }) => sections),
    '',
  ].join('\n');
}
