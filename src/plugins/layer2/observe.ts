import { ip, ipFailed } from '../../host/ip.ts';
import { type HeldAddress, parseAddresses } from './plan.ts';

/** IPv4 addresses of this host's devices. @throws PluginError */
export async function addressesHeld(signal: AbortSignal): Promise<HeldAddress[]> {
  const { stdout, complaint } = await ip(['-j', 'addr', 'show'], signal);
  if (complaint !== undefined) throw ipFailed('list the addresses', complaint);
  return parseAddresses(stdout);
}
