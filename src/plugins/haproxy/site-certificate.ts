/** Checks the founder's certificate for the site, so that a bad one blocks nothing else. Pure. */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import type { Finding } from '../contract.ts';
import { withSnippets } from './snippets.ts';

/** A certificate with its chain and a key is 10 kB; beyond this it is another file. */
const MAX_CHARACTERS = 256 * 1024;
/** Certificates, keys and parameters; a bundle of all roots in the world is another file. */
const MAX_BLOCKS = 64;
/** No issuer has a longer chain. */
const MAX_CERTIFICATES = 16;

interface SiteCertificate {
  /** Certificate, chain and key, in the order that HAProxy reads, and nothing else. */
  readonly pem: string;
  readonly fromMs: number;
  readonly untilMs: number;
}

/**
 * Reads the PEM blocks of a file, in any order and with any text around them, and finds the certificate that belongs to
 * the key.
 */
export function readSite(text: string): SiteCertificate | Finding {
  if (text.length > MAX_CHARACTERS)
    return finding('site-certificate-unreadable', `has more than ${MAX_CHARACTERS} characters`);
  const blocks = blocksIn(text);
  const keys = blocks.filter(({ label }) => label.endsWith('PRIVATE KEY'));
  if (keys.some(({ label, encrypted }) => encrypted || label === 'ENCRYPTED PRIVATE KEY'))
    return finding(
      'site-key-encrypted',
      'has a private key that needs a passphrase',
      'remove the passphrase: `openssl pkey -in OLD -out NEW`, put the result into the file, then reload',
    );
  const certificates = blocks
    .filter(({ label }) => label === 'CERTIFICATE' || label === 'X509 CERTIFICATE')
    .slice(0, MAX_CERTIFICATES)
    .map(({ body }) => parsed(() => new X509Certificate(pemOf('CERTIFICATE', body))));
  if (certificates.length === 0) return finding('site-certificate-missing', 'has no certificate in PEM form');
  if (certificates.includes(undefined))
    return finding('site-certificate-unreadable', 'has a certificate that cannot be read');
  if (keys.length === 0) return finding('site-key-missing', 'has no private key in PEM form');
  const chain = certificates.filter((each) => each !== undefined);
  for (const { label, body } of keys) {
    const key = parsed(() => createPrivateKey(pemOf(label, body)));
    const leaf = key && chain.find((each) => each.checkPrivateKey(key));
    if (key !== undefined && leaf !== undefined) return siteOf(leaf, chain, key);
  }
  return finding('site-key-mismatch', 'has a private key that belongs to none of its certificates');
}

export function isFinding(site: SiteCertificate | Finding): site is Finding {
  return 'code' in site;
}

/** The certificate for HAProxy, and its problem for the operator. */
interface SiteChoice {
  /** Undefined: the node's own certificate. */
  readonly pem: string | undefined;
  readonly alarm: Finding | undefined;
}

export interface SiteSituation {
  /** The site's certificate that the present haproxy.cfg names; undefined: none. */
  readonly former: string | undefined;
  /** Why HAProxy refuses a certificate, by its content. */
  readonly refused: ReadonlyMap<string, string>;
  readonly nowMs: number;
}

/**
 * A valid certificate, else the former one, else the node's own: browsers warn about that one, peers accept it.
 */
export function chooseSite(
  text: string | undefined,
  problem: Finding | undefined,
  { former, refused, nowMs }: SiteSituation,
): SiteChoice {
  if (text === undefined && problem === undefined) return { pem: undefined, alarm: undefined };
  const usable = former !== undefined && !refused.has(former) ? former : undefined;
  const instead = (alarm: Finding): SiteChoice => ({ pem: usable, alarm: withUse(alarm, usable) });
  if (text === undefined) return instead(problem ?? finding('site-certificate-missing', 'is empty'));
  const site = readSite(text);
  if (isFinding(site)) return instead(site);
  const said = refused.get(site.pem);
  if (said !== undefined)
    return instead(finding('site-certificate-refused', `is refused by HAProxy: ${said}`));
  const dated = datesOf(site, nowMs);
  if (dated === undefined) return { pem: site.pem, alarm: undefined };
  // An expired certificate with the right name is better than another name, and no worse than the present one.
  if (usable === undefined || usable === site.pem) return { pem: site.pem, alarm: dated };
  const present = readSite(usable);
  return isFinding(present) || datesOf(present, nowMs) !== undefined
    ? { pem: site.pem, alarm: dated }
    : instead(dated);
}

function datesOf({ fromMs, untilMs }: SiteCertificate, nowMs: number): Finding | undefined {
  const day = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
  if (nowMs > untilMs)
    return finding(
      'site-certificate-expired',
      `has a certificate that ended on ${day(untilMs)}`,
      'renew it, put certificate, chain and key into the file, then `systemctl reload bornemisza@app`',
    );
  if (nowMs < fromMs)
    return finding(
      'site-certificate-not-yet-valid',
      `has a certificate that begins on ${day(fromMs)}`,
      'check the clock of this host (`timedatectl`), or wait until that day, then reload',
    );
  return undefined;
}

function withUse({ code, message, next }: Finding, former: string | undefined): Finding {
  const use =
    former === undefined
      ? 'browsers get this node’s own certificate and warn'
      : 'the former certificate stays in use';
  return { code, message: `${message}; ${use}`, next };
}

interface Block {
  readonly label: string;
  /** Base64 without white space. */
  readonly body: string;
  readonly encrypted: boolean;
}

function blocksIn(text: string): Block[] {
  const blocks: Block[] = [];
  let at = 0;
  for (let tries = 0; tries < MAX_BLOCKS; tries += 1) {
    const [head, label = ''] = /-----BEGIN ([A-Z0-9 ]{1,40})-----/.exec(text.slice(at)) ?? [];
    if (head === undefined) break;
    const begin = text.indexOf(head, at) + head.length;
    const end = text.indexOf(`-----END ${label}-----`, begin);
    at = end === -1 ? begin : end;
    if (end === -1) continue;
    const inside = text.slice(begin, end);
    blocks.push({
      label,
      body: inside.replaceAll(/^[A-Za-z-]+:.*$/gm, '').replaceAll(/\s/g, ''),
      encrypted: /^Proc-Type:.*ENCRYPTED/m.test(inside),
    });
  }
  return blocks;
}

function siteOf(leaf: X509Certificate, all: readonly X509Certificate[], key: KeyObject): SiteCertificate {
  const chain = [leaf];
  let rest = all.filter((each) => each !== leaf);
  for (let last: X509Certificate | undefined = leaf; last !== undefined; ) {
    const issued: X509Certificate = last;
    last = rest.find((each) => issued.checkIssued(each));
    if (last !== undefined) chain.push(last);
    rest = rest.filter((each) => each !== last);
  }
  // A certificate outside the chain can be a cross-signed one: browsers can use it.
  const certificates = [...chain, ...rest].map((each) => each.toString().trimEnd());
  return {
    pem: `${certificates.join('\n')}\n${key.export({ format: 'pem', type: 'pkcs8' }).toString()}`,
    fromMs: leaf.validFromDate.getTime(),
    untilMs: leaf.validToDate.getTime(),
  };
}

function pemOf(label: string, body: string): string {
  return `-----BEGIN ${label}-----\n${body.replaceAll(/.{64}/g, '$&\n').trimEnd()}\n-----END ${label}-----\n`;
}

function parsed<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}

function finding(
  code: string,
  what: string,
  next = 'put certificate, chain and key in PEM form into the file of edge.certificate, then `systemctl reload ' +
    'bornemisza@app`',
): Finding {
  return { code, message: `the site’s certificate file ${what}`, next };
}

/** The file of the site's certificate that a configuration of ours names. */
export function siteFileIn(config: string): string | undefined {
  return /\/(edge-[0-9a-f]{16}\.pem)\b/.exec(withSnippets(config))?.[1];
}

/** The smallest configuration with which HAProxy loads a certificate. */
export function siteProof(file: string): string {
  return (
    `defaults\n  mode http\n  timeout client 1s\n  timeout server 1s\n  timeout connect 1s\nfrontend ` +
    `site\n  bind 127.0.0.1:1 ssl crt ${file} ssl-min-ver TLSv1.2\n`
  );
}
