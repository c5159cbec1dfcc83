import { ip, ipFailed, removeAddress } from '../../host/ip.ts';
import { type FloatingChange, labelOf } from './plan.ts';

/** @throws PluginError */
export async function changeDevice(
  change: Extract<FloatingChange, { kind: 'device-on' | 'device-off' }>,
  signal: AbortSignal,
): Promise<void> {
  const { kind, device, address } = change;
  if (kind === 'device-off') return removeAddress(device, `${address}/32`, signal);
  const args = ['addr', 'replace', `${address}/32`, 'dev', device, 'label', labelOf(device)];
  const { complaint } = await ip(args, signal);
  if (complaint !== undefined) throw ipFailed(`put ${address} on ${device}`, complaint);
}
