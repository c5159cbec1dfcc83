import { runCommand } from '../../host/command.ts';
import { ip, ipFailed } from '../../host/ip.ts';
import { PluginError } from '../contract.ts';
import { labelOf } from './plan.ts';

/** Two probes, each with a second for the answer: one lost frame must not make a second holder. */
const PROBE = ['-D', '-f', '-c', '2', '-w', '2'];
/** Twice, a second apart, for neighbours that miss a frame. */
const TELL = ['-c', '2', '-w', '1'];
const ARPING_TIMEOUT_MS = 5000;

/**
 * Takes no address while another machine on the link answers for it.
 *
 * @param refused called when another host answers
 * @throws PluginError `layer2-address-taken`
 */
export async function probe(
  device: string,
  address: string,
  refused: () => void,
  signal: AbortSignal,
): Promise<void> {
  const { code, stdout } = await arping([...PROBE, '-I', device, address], signal);
  if (code === 0) return;
  const other = /\[([0-9A-F:]{17})\]/i.exec(stdout)?.[1];
  if (other === undefined) throw arpingFailed(`ask on ${device} who has ${address}`, stdout);
  refused();
  throw new PluginError({
    code: 'layer2-address-taken',
    message: `${address} is not taken on ${device}: ${other} answers for it there`,
    next:
      'find that machine (`bornemisza members`; `ip neigh`): if it serves the site, wait; else remove ' +
      `${address} from it. This node probes again every two seconds`,
    outcome: 'retry',
  });
}

export async function take(device: string, address: string, signal: AbortSignal): Promise<void> {
  const args = ['addr', 'replace', `${address}/32`, 'dev', device, 'label', labelOf(device)];
  const { complaint } = await ip(args, signal);
  if (complaint !== undefined) throw ipFailed(`put ${address} on ${device}`, complaint);
}

/** An address stays even if the neighbours could not be notified: they will ask for it themselves. */
export async function tell(device: string, addresses: readonly string[], signal: AbortSignal): Promise<void> {
  // Requests and answers: some neighbours accept only one of the two (RFC 5227, 3).
  const each = addresses.flatMap((address) =>
    ['-U', '-A'].map((form) => arping([form, ...TELL, '-I', device, '-s', address, address], signal)),
  );
  try {
    await Promise.all(each);
  } catch (error) {
    if (!(error instanceof PluginError)) throw error;
    const { code, message, next, outcome } = error;
    throw new PluginError({ code, message, next, outcome, keepsChanges: true, cause: error });
  }
}

/** @returns code 0: nobody answered (when probing), or it was sent; 1: somebody did, or the device is down */
async function arping(
  args: readonly string[],
  signal: AbortSignal,
): Promise<{ readonly code: number; readonly stdout: string }> {
  const { code, stdout, stderr } = await runCommand('arping', args, {
    timeoutMs: ARPING_TIMEOUT_MS,
    signal,
    missingNext: 'install it: `dnf install iputils` (Debian: iputils-arping)',
  });
  if (code !== 0 && code !== 1) throw arpingFailed(`run arping ${args.join(' ')}`, stderr);
  return { code, stdout };
}

function arpingFailed(what: string, said: string): PluginError {
  const permitted = !/not permitted/.test(said);
  return new PluginError({
    code: permitted ? 'layer2-arp-failed' : 'layer2-arp-not-permitted',
    message: `cannot ${what}: ${said.trim().split('\n')[0]?.slice(0, 200)}`,
    next: permitted
      ? 'check that the device is up: `ip link`; then `bornemisza doctor`'
      : 'the daemon needs CAP_NET_RAW in this mode: ' +
        '/etc/systemd/system/bornemisza@app.service.d/layer2.conf, see docs/install.md',
    outcome: 'retry',
  });
}
