import { Command } from './command.ts';
import type { ApiProvider } from './desired.ts';
import { DigitalOcean } from './digitalocean.ts';
import { Hetzner } from './hetzner.ts';
import type { ApiOptions } from './http.ts';
import type { FloatingProvider } from './provider.ts';
import { UpCloud } from './upcloud.ts';

interface ProviderSettings {
  readonly provider: ApiProvider;
  readonly tokenFile: string;
  /** Undefined: read from the provider's metadata service, or from the device. */
  readonly serverId: string | undefined;
  /** Of provider `command`. */
  readonly command: readonly string[];
  readonly publicDevice: string;
  /** For tests. */
  readonly baseUrl?: string;
  readonly metadataUrl?: string;
}

/** @param nowMs monotonic, ms */
export function providerOf(
  settings: ProviderSettings,
  nowMs: () => number = () => performance.now(),
): FloatingProvider {
  const { provider, serverId, command, publicDevice, tokenFile, baseUrl, metadataUrl } = settings;
  const options: ApiOptions = { tokenFile, nowMs, baseUrl, metadataUrl };
  switch (provider) {
    case 'digitalocean':
      return new DigitalOcean(options, serverId);
    case 'hetzner':
      return new Hetzner(options, serverId);
    case 'upcloud':
      return new UpCloud(options, serverId, publicDevice);
    case 'command':
      return new Command(command, serverId ?? '');
  }
}
