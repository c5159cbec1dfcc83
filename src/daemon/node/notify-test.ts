import type { Done, Progress } from '../control/api.ts';
import { OperatorError } from '../errors.ts';
import type { Identity } from '../identity/identity.ts';
import type { Notifier } from '../notification/notifier.ts';

/**
 * `bornemisza notify test`: one line for each way to tell a person.
 *
 * @param configFile where the ways are named
 * @throws OperatorError `notify-not-configured`, `notify-test-failed`
 */
export async function testNotification(
  notifier: Pick<Notifier, 'test'>,
  { name, role }: Pick<Identity, 'name' | 'role'>,
  configFile: string,
  progress: (step: Progress) => void,
): Promise<Done> {
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
      `${name} is told nothing in [notify], so it tells nobody`,
      `add mail_to, webhook_url or command to ${configFile}, then: systemctl reload bornemisza@${role}`,
    );
  }
  if (failed > 0) {
    throw new OperatorError(
      'notify-test-failed',
      `${failed} of ${reached + failed} ways to tell somebody failed`,
      'do what is said for each, then test again',
    );
  }
  return { done: true, message: 'sent by every way; see whether it arrives' };
}
