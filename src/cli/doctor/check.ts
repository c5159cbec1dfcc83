/** One check. `fail`: this node cannot do its work; `warn`: that will or can happen later. */
export interface Check {
  readonly area: string;
  readonly name: string;
  readonly state: 'ok' | 'warn' | 'fail';
  readonly detail: string;
  /** The next step; '' if all is well. */
  readonly next: string;
}

/** Makes the checks of one area, e.g. `host` or `app`. */
export interface Area {
  ok(name: string, detail: string): Check;
  warn(name: string, detail: string, next: string): Check;
  fail(name: string, detail: string, next: string): Check;
}

export function areaOf(area: string): Area {
  return {
    ok: (name, detail) => ({ area, name, state: 'ok', detail, next: '' }),
    warn: (name, detail, next) => ({ area, name, state: 'warn', detail, next }),
    fail: (name, detail, next) => ({ area, name, state: 'fail', detail, next }),
  };
}
