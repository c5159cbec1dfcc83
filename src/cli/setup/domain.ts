import type { Paths } from '../../daemon/config/config.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { replaceFile } from '../../host/files.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Settings } from './config-text.ts';
import type { SetupOptions } from './options.ts';
import { giveToGroup } from './owners.ts';
import { readSecret } from './recovery-input.ts';
import type { Step } from './steps.ts';

/** Beside the configuration: owned by root, read by the daemon. */
const TOKEN_NAME = 'dns.token';
const TERMS = 'https://letsencrypt.org/repository/';

/** The result of `--domain` and related options. */
export interface DomainSetup {
  readonly settings: Pick<Settings, 'domain' | 'dns'>;
  readonly steps: readonly Step[];
}

/**
 * The name of the site: a certificate for it, and with a token of the provider its DNS records.
 *
 * @throws CliFailure for flags that do not fit together: nothing was changed
 */
export async function domainOf(
  options: SetupOptions,
  {
    role,
    root,
    paths,
  }: { readonly role: Role; readonly root: string; readonly paths: Pick<Paths, 'config'> },
): Promise<DomainSetup> {
  const { domain, dnsTokenFile, dnsZoneId } = options;
  refuse(role !== 'app' && domain !== undefined, '--domain is for role app: app nodes serve the site');
  refuse(domain === undefined && dnsTokenFile !== undefined, '--dns-token-file needs --domain');
  refuse(
    (dnsTokenFile === undefined) !== (dnsZoneId === undefined),
    '--dns-token-file and --dns-zone-id go together',
  );
  if (domain === undefined) return { settings: { domain: undefined, dns: undefined }, steps: [] };
  refuse(
    options.agreeTerms !== true,
    `--domain orders a certificate from Let's Encrypt, whose terms need your consent`,
    `read ${TERMS}; if you agree, pass --agree-terms; for a certificate of your own: --certificate`,
  );
  if (dnsTokenFile === undefined || dnsZoneId === undefined)
    return { settings: { domain, dns: undefined }, steps: [] };
  const token = (await readSecret(dnsTokenFile, '--dns-token-file')).trim();
  refuse(!/^[\x21-\x7e]{20,200}$/.test(token), `${dnsTokenFile} does not hold a Cloudflare token`);
  const tokenFile = paths.config.replace(/[^/]+$/, TOKEN_NAME);
  return {
    settings: { domain, dns: { zoneId: dnsZoneId, tokenFile } },
    steps: [tokenStep(tokenFile, token, root)],
  };
}

/** A token of a provider, beside the configuration. */
export function tokenStep(file: string, token: string, root: string): Step {
  return {
    title: `write ${file}, readable only by root and the daemon`,
    run: async () => {
      await replaceFile(file, `${token}\n`, { mode: 0o640 });
      if (root === '') await giveToGroup(file);
      return undefined;
    },
  };
}

function refuse(wrong: boolean, message: string, next = 'see bornemisza init --help'): void {
  if (wrong) throw new CliFailure(EXIT.usage, 'domain-incomplete', message, next);
}
