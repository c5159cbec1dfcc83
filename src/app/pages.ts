import { stat } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import sirv from 'sirv';
import { AppConfigError } from './config.ts';

/**
 * No inline code or style, nothing from other sites, and the only string that may become code is the page's own worker
 * (Trusted Types): an injection into the page has no effect. Sent with every answer of the page.
 */
const PAGE_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "manifest-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors " +
    "'none'; require-trusted-types-for 'script'; trusted-types worker",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=()',
};

type ServePage = (request: IncomingMessage, response: ServerResponse) => void;

/** Serves the page's files; the path of a screen gets `index.html`. @throws AppConfigError */
export async function servePages(root: string): Promise<ServePage> {
  const facts = await stat(root).catch(() => undefined);
  if (facts?.isDirectory() !== true)
    throw new AppConfigError(
      'accounts-web-root',
      `${root} is not a directory`,
      'correct web_root, or reinstall the package',
    );
  return sirv(root, {
    etag: true,
    brotli: true,
    gzip: true,
    single: true,
    dotfiles: false,
    setHeaders: (response) => {
      for (const [name, value] of Object.entries(PAGE_HEADERS)) response.setHeader(name, value);
      // File names have no version: a browser asks each time and gets 304.
      response.setHeader('cache-control', 'no-cache');
    },
    onNoMatch: (_request, response) =>
      response.writeHead(404, { 'content-type': 'text/plain' }).end('Not found.\n'),
  });
}
