import { OperatorError } from '../errors.ts';
import type { Failure, Notifier } from './notifier.ts';

/**
 * `bornemisza notify test`: one line for each channel.
 *
 * @param configFile the file that names the channels
 * @throws OperatorError `notify-not-configured`, `notify-test-failed`
 */
export async function testNotification(
  notifier: Pick<Notifier, 'test'>,
  { name, role }: { readonly name: string; readonly role: string },
  configFile: string,
  progress: (step: { readonly message: string; readonly error?: Failure }) => void,
): Promise<{ readonly done: true; readonly message: string }> {
  let reached = 0;
  let failed = 0;
  for await (const { channel, failure } of notifier.test()) {
    if (failure === undefined) reached += 1;
    else failed += 1;
    const words = `${channel.name} (${channel.target})`;
    progress(
      failure === undefined
        ? { message: `sent by ${words}` }
        : { message: `${words} failed: ${failure.message}`, error: failure },
    );
  }
  if (reached + failed === 0) {
    throw new OperatorError(
      'notify-not-configured',
      `${name} has no channel in [notify], so it sends no notification`,
      `add mail_to, webhook_url or command to ${configFile}, then: systemctl reload bornemisza@${role}`,
    );
  }
  if (failed > 0) {
    throw new OperatorError(
      'notify-test-failed',
      `${failed} of ${reached + failed} channels failed`,
      'do the next step of each, then test again',
    );
  }
  return { done: true, message: 'sent by every channel; check that it arrives' };
}
