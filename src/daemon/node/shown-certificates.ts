import { readIfPresent } from '../../host/files.ts';
import { PluginError } from '../../plugins/contract.ts';
import { isFinding, readSite } from '../../plugins/haproxy/site-certificate.ts';
import type { Config } from '../config/config.ts';
import type { Identity } from '../identity/identity.ts';
import type { ShownCertificates } from './look.ts';

/** The certificates that this node presents and trusts, from the disk. */
export async function shownBy(identity: Identity, config: Config): Promise<ShownCertificates> {
  const file = config.role === 'app' ? config.edge.certificate : undefined;
  const key = await identity.tlsKeyPem();
  const site = file === undefined ? { edge: undefined } : await readEdgeCertificate(file);
  const siteEndMs = site.edge === undefined ? undefined : endOf(site.edge);
  return { chain: identity.chainPem.trim(), key, ca: identity.rootsPem, ...site, siteEndMs };
}

/** The plugin checks the file; the end of a refused certificate is not reported. */
function endOf(pem: string): number | undefined {
  const site = readSite(pem);
  return isFinding(site) ? undefined : site.untilMs;
}

/** The file is optional: if it cannot be read, nothing else stops, and `status` reports it. */
async function readEdgeCertificate(file: string): Promise<Pick<ShownCertificates, 'edge' | 'edgeProblem'>> {
  try {
    const edge = await readIfPresent(file);
    if (edge !== undefined) return { edge };
    return { edge: undefined, edgeProblem: unreadable(file, 'there is no such file') };
  } catch (error) {
    const why = error instanceof PluginError ? error.message : String(error);
    return { edge: undefined, edgeProblem: unreadable(file, why) };
  }
}

function unreadable(file: string, why: string): NonNullable<ShownCertificates['edgeProblem']> {
  return {
    code: 'edge-certificate',
    message: `cannot read the site’s certificate file ${file}: ${why}`,
    next:
      `make it readable for the daemon: chgrp bornemisza ${file} && chmod 640 ${file}, then \`systemctl ` +
      'reload bornemisza@app`',
  };
}
