import { createHash } from 'node:crypto';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileError, readIfOurs, replaceFile } from '../../host/files.ts';
import { CONFIG_FILE, REVOKED_FILE } from './rendered.ts';
import { siteFileIn } from './site-certificate.ts';

/** Former configurations that stay beside the present one, with the certificates that they name. */
export const BACKUPS = 5;
export const FILE_MODE = 0o640;
/** Enough for certificates of many renewals; more are somebody else's files. */
const MAX_FILES = 1000;
/** Files that are read at the same time: each is a descriptor. */
const AT_ONCE = 16;

/** The directory of one instance. */
export class HaproxyFiles {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  read(name: string): Promise<string | undefined> {
    return readIfOurs(this.path(name));
  }

  write(name: string, content: string): Promise<unknown> {
    return replaceFile(this.path(name), content, { mode: FILE_MODE });
  }

  async names(): Promise<string[]> {
    const names = await readdir(this.directory).catch((error: unknown) => {
      throw fileError(error, this.path(CONFIG_FILE));
    });
    return names
      .filter((name) => name === CONFIG_FILE || name === REVOKED_FILE || isNamed(name))
      .slice(0, MAX_FILES);
  }

  /** Name → SHA-256 (hex). */
  async digests(): Promise<Map<string, string>> {
    const names = await this.names();
    const digests = new Map<string, string>();
    for (let at = 0; at < names.length; at += AT_ONCE) {
      const some = names.slice(at, at + AT_ONCE);
      const texts = await Promise.all(some.map((name) => this.read(name)));
      for (const [index, name] of some.entries()) {
        const text = texts[index];
        if (text !== undefined) digests.set(name, sha256(text));
      }
    }
    return digests;
  }

  /** The certificate for the site that the present configuration names. */
  async formerSite(): Promise<string | undefined> {
    const name = siteFileIn((await this.read(CONFIG_FILE)) ?? '');
    return name === undefined ? undefined : this.read(name);
  }

  /** Certificates that neither the configuration nor one of its backups names. */
  async prune(): Promise<void> {
    const ages = ['', ...Array.from({ length: BACKUPS }, (_, index) => `.${index + 1}`)];
    const texts = await Promise.all(ages.map((age) => this.read(`${CONFIG_FILE}${age}`)));
    for (const name of await this.names()) {
      if (isNamed(name) && !texts.some((text) => text?.includes(name)))
        await rm(this.path(name), { force: true });
    }
  }

  /** Changes when somebody changes the files. */
  async marks(): Promise<string> {
    const marks = [CONFIG_FILE, REVOKED_FILE].map(async (name) => {
      const facts = await stat(this.path(name), { bigint: true }).catch(() => undefined);
      return facts === undefined ? '-' : `${facts.ino}/${facts.size}/${facts.mtimeNs}`;
    });
    return (await Promise.all(marks)).join(' ');
  }
}

/** Certificates, and the page for errors: they never change, and the configuration names them. */
export function isNamed(name: string): boolean {
  return /^((node|ca|edge)-[0-9a-f]{16}\.pem|page-[0-9a-f]{16}\.html)$/.test(name);
}

export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
