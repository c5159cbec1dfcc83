import { CloudflareProvider } from './cloudflare.ts';
import type { DnsProvider } from './provider.ts';
import { Rfc2136Provider } from './rfc2136.ts';

/** `[dns]`; the configuration has checked that the provider's settings are complete. */
interface DnsSettings {
  readonly provider: string;
  readonly zone?: string | undefined;
  readonly zone_id?: string | undefined;
  readonly token_file?: string | undefined;
  readonly server?: string | undefined;
  readonly port: number;
  readonly key_file?: string | undefined;
}

export function dnsProviderOf(dns: DnsSettings): DnsProvider {
  const { zone_id = '', token_file = '', server = '', port, key_file = '' } = dns;
  const zone = (dns.zone ?? '').toLowerCase();
  return dns.provider === 'cloudflare'
    ? new CloudflareProvider({ zone, zoneId: zone_id, tokenFile: token_file })
    : new Rfc2136Provider({ zone, server, port, keyFile: key_file });
}
