import { DNS_READY, DNS_TAG } from '../../roles/dns.ts';
import type { MemberRow, Warning } from '../control/api.ts';

/** Where the only node that can write the DNS records dies, they stay as they are. */
export function dnsWarnings(rows: readonly MemberRow[]): Warning[] {
  const present = rows.filter(({ state, role }) => state !== 'left' && role === 'app');
  const writers = present.filter(({ tags }) => tags[DNS_TAG] === DNS_READY);
  const [writer] = writers;
  if (writer === undefined || writers.length > 1 || present.length === 1) return [];
  return [
    {
      code: 'one-dns-writer',
      message: `only ${writer.name} can write the DNS records; if it dies, they stay as they are`,
      next: 'put [dns] and its key file on a second app node',
    },
  ];
}
