import { createHash } from 'node:crypto';
import { appSections } from './app-sections.ts';
import { dbSections } from './db-sections.ts';
import type { HaproxyDesired } from './desired.ts';
import { type Layout, type RenderedFile, type Rendered, CONFIG_FILE, REVOKED_FILE } from './rendered.ts';
import {
  type Context,
  type Section,
  full,
  bare,
  globalSection,
  defaultsSection,
  statisticsUsers,
  statsSection,
} from './sections.ts';
import type { UsedSnippet } from './snippets.ts';
import { filePath, fingerprint, pem, serial, token } from './values.ts';

/**
 * The files of an instance. Pure; the same input gives the same bytes. `refused` has the optional lines that are left
 * out, `snippets` the founder's parts that are embedded.
 *
 * @throws PluginError `haproxy-value-refused` when a value could be read as anything but itself
 */
export function render(
  desired: HaproxyDesired,
  layout: Layout,
  refused: ReadonlySet<string> = new Set(),
  snippets: readonly UsedSnippet[] = [],
): Rendered {
  const files = certificateFiles(desired, layout);
  const context: Context = {
    ...files.paths,
    layout,
    privateAddress: desired.privateAddress,
    revokedList: `${layout.directory}/${REVOKED_FILE}`,
    servers: [],
    refused,
    snippets,
  };
  const sections = desired.instance === 'app' ? appSections(desired, context) : dbSections(desired, context);
  const all = [
    defaultsSection(refused),
    ...sections,
    ...statisticsUsers(desired),
    statsSection(desired, refused),
  ];
  const foreign = snippets
    .filter((snippet) => snippet.sections.length > 0)
    .map((snippet) => snippet.sections.join('\n').concat('\n'));
  const structure = digest(
    essence([
      globalSection(desired, layout, '-') + all.map((section) => bare(section)).join('\n'),
      ...foreign,
    ]),
  );
  const text = [
    globalSection(desired, layout, structure),
    ...all.map((section) => full(section)),
    ...foreign,
  ].join('\n');
  const revoked = [
    ...desired.revoked.map(({ serialHex, address }) => ({ mark: serial(serialHex), address })),
    // Good ones first: sent to the process one by one, the other order would refuse members for a moment.
    ...desired.knownCertificates.map((known) => ({ mark: `+${fingerprint(known)}`, address: undefined })),
    ...desired.revokedAuthorities.map((word) => ({ mark: token('authority', word), address: undefined })),
  ];
  return {
    files: [
      ...files.files,
      {
        name: REVOKED_FILE,
        content: [...new Set(revoked.map((each) => `${each.mark}\n`))].sort().join(''),
      },
      {
        name: CONFIG_FILE,
        content: `# Written by bornemisza, which restores it after an edit.\n${text}`,
      },
    ],
    structure,
    site: files.site && { ...files.site, sha1: leafDigest(files.site.content) },
    servers: context.servers,
    frontends: headed('frontend ', all),
    backends: new Set(headed('backend ', all)),
    snippets,
    revoked,
  };
}

function certificateFiles(desired: HaproxyDesired, { directory }: Layout) {
  // Named by content: a file is written once and never changes, so the last good configuration keeps its own.
  const named = (kind: string, content: string): RenderedFile => ({
    name: `${kind}-${digest(content)}.pem`,
    content: pem(`${kind} certificate`, content),
  });
  const { certificates } = desired;
  const page = pageFile(desired);
  const node = named('node', certificates.node);
  const ca = named('ca', certificates.ca);
  const edge = certificates.edge === undefined ? node : named('edge', certificates.edge);
  const path = (file: RenderedFile): string => filePath('certificate file', `${directory}/${file.name}`);
  return {
    files: [node, ca, ...(edge === node ? [] : [edge]), ...(page === undefined ? [] : [page])],
    site: edge === node ? undefined : edge,
    paths: { node: path(node), ca: path(ca), edge: path(edge), page: page && path(page) },
  };
}

const headed = (word: string, sections: readonly Section[]): string[] =>
  sections.flatMap(({ head }) => (head.startsWith(word) ? [head.slice(word.length)] : []));

/** Its content is never a part of haproxy.cfg. HAProxy reads it at its start: other content has another name. */
function pageFile(desired: HaproxyDesired): RenderedFile | undefined {
  const content = desired.instance === 'app' ? desired.errorPage : undefined;
  return content === undefined ? undefined : { name: `page-${digest(content)}.html`, content };
}

/**
 * What needs a reload. Another certificate of the site is given to the running process; whether there is one is
 * structure. Comments of a snippet are none.
 */
function essence(parts: readonly string[]): string {
  return parts
    .join('\n')
    .replaceAll(/\/edge-[0-9a-f]{16}\.pem\b/g, '/edge.pem')
    .replaceAll(/^\s*#(?: snippet .*)?\n/gm, '');
}

/** SHA-1 of the first certificate in hex, as HAProxy gives it out of what it has loaded. */
function leafDigest(content: string): string {
  const body = /-----BEGIN CERTIFICATE-----([^-]*)-----END/.exec(content)?.[1] ?? '';
  return createHash('sha1').update(Buffer.from(body, 'base64')).digest('hex');
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
