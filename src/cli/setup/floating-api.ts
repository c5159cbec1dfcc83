import type { Paths } from '../../daemon/config/config.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Settings } from './config-text.ts';
import { tokenStep } from './domain.ts';
import type { SetupOptions } from './options.ts';
import { readSecret } from './recovery-input.ts';
import type { Step } from './steps.ts';

/** Beside the configuration: root's, and read by the daemon. */
const TOKEN_NAME = 'floating.token';

/** What `--floating-mode api` and its like come to. */
export interface FloatingApiSetup {
  readonly settings: Pick<Settings, 'floatingApi'>;
  readonly steps: readonly Step[];
}

/**
 * The provider whose API assigns the floating IPs, and its token, which may also be put in place later.
 *
 * @throws CliFailure for flags that do not fit together: nothing was changed
 */
export async function floatingApiOf(
  options: SetupOptions,
  {
    role,
    root,
    paths,
  }: { readonly role: Role; readonly root: string; readonly paths: Pick<Paths, 'config'> },
): Promise<FloatingApiSetup> {
  const { floatingMode: mode, floatingProvider: provider, floatingTokenFile: given } = options;
  if (mode !== 'api') {
    refuse(
      (provider ?? given) !== undefined,
      '--floating-provider and --floating-token-file need --floating-mode api',
    );
    return { settings: {}, steps: [] };
  }
  refuse(role !== 'app', '--floating-mode is for role app: app nodes have the floating IPs');
  refuse(options.floatingIp === undefined, '--floating-mode api needs --floating-ip');
  if (provider === undefined)
    throw refusal('--floating-mode api needs --floating-provider digitalocean, hetzner or upcloud');
  const tokenFile = paths.config.replace(/[^/]+$/, TOKEN_NAME);
  const settings = { floatingApi: { provider, tokenFile } };
  if (given === undefined) return { settings, steps: [] };
  const token = (await readSecret(given, '--floating-token-file')).trim();
  refuse(!/^[\x21-\x7e]{20,200}$/.test(token), `${given} holds no token of the provider`);
  return { settings, steps: [tokenStep(tokenFile, token, root)] };
}

function refuse(wrong: boolean, message: string): void {
  if (wrong) throw refusal(message);
}

function refusal(message: string): CliFailure {
  return new CliFailure(
    EXIT.usage,
    'options-invalid',
    message,
    'see bornemisza init --help and docs/floating.md',
  );
}
