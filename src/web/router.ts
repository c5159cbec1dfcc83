/** The screen that is shown. The token of a mailed link is in the fragment; it is removed from the address at once. */
interface Place {
  readonly path: string;
  readonly token: string;
}

export function placeNow(): Place {
  const token = location.hash.slice(1);
  if (token !== '') history.replaceState(null, '', location.pathname);
  return { path: location.pathname, token };
}

export function go(path: string): void {
  history.pushState(null, '', path);
  dispatchEvent(new PopStateEvent('popstate'));
}

/** A link inside the page; with a modifier key or another button the browser acts as usual. */
export function follow(event: MouseEvent): void {
  const link = event.currentTarget as HTMLAnchorElement;
  if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.pathname);
}
