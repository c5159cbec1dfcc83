/** A server as HAProxy itself sees it. */
export interface ServerRecord {
  readonly backend: string;
  readonly name: string;
  /** `BACKEND/NAME`. */
  readonly server: string;
  /** As in `show stat`, e.g. `UP`, `UP 1/2`, `DOWN`, `MAINT`, `no check`. */
  readonly status: string;
  /** How often its check took it down since HAProxy started. */
  readonly downs: number;
  /** Since its last change of state, by check or by command. */
  readonly changedSecondsAgo: number;
  /** Requests that it has now. */
  readonly sessions: number;
  /** Requests that it got and did not answer, since HAProxy started. */
  readonly unanswered: number;
}

/** Reads the CSV of `show stat` (HAProxy, management guide, 9.1) without frontends and backends. */
export function parseServers(csv: string): ServerRecord[] {
  const [header = '', ...lines] = csv.split('\n');
  const columns = header.replace(/^# /, '').split(',');
  return lines.flatMap((line): ServerRecord[] => {
    const cells = line.split(',');
    const cell = (column: string): string => cells[columns.indexOf(column)] ?? '';
    const [backend, name] = [cell('pxname'), cell('svname')];
    if (['FRONTEND', 'BACKEND', ''].includes(name)) return [];
    return [
      {
        backend,
        name,
        server: `${backend}/${name}`,
        status: cell('status'),
        downs: Number(cell('chkdown')),
        changedSecondsAgo: Number(cell('lastchg')),
        sessions: Number(cell('scur')),
        unanswered: Number(cell('eresp')),
      },
    ];
  });
}
