import type { Client } from './client.ts';

export interface PageRequest {
  /** `https://HOST` of the site whose page asks. */
  readonly site: string;
  /** `https://HOST` where the connection goes. Default: the site. */
  readonly at?: string;
  readonly method: string;
  readonly path: string;
  readonly cookie: string;
  readonly body?: unknown;
  readonly timeoutMs: number;
}

/** What a browser sends with a request of the site's own page. */
export function pageHeaders(site: string, cookie: string): Readonly<Record<string, string>> {
  return { origin: site, 'sec-fetch-site': 'same-origin', 'content-type': 'application/json', cookie };
}

/**
 * One request to the app tier as a browser sends it for the site's own page.
 *
 * @returns `cookie` is what the answer sets; '' if it sets none
 */
export async function askAsPage(
  client: Client,
  { site, at = site, method, path, cookie, body, timeoutMs }: PageRequest,
): Promise<{ readonly status: number; readonly text: string; readonly cookie: string }> {
  const answer = await client.request({
    url: `${at}${path}`,
    method,
    headers: pageHeaders(site, cookie),
    timeoutMs,
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const set = [answer.headers['set-cookie'] ?? []].flat().map((line) => line.split(';')[0] ?? '');
  return { status: answer.status, text: answer.body, cookie: set.join('; ') };
}
