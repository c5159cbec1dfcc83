import { answered } from '../answered.ts';
import type { Host } from '../io.ts';
import type { Area, Check } from './check.ts';

/** Types of ports that the module bornemisza (rpm/selinux/bornemisza.cil) lets our HAProxy bind. */
const ALLOWED_TYPES = new Set(['http_port_t', 'http_cache_port_t', 'couchdb_port_t', 'unreserved_port_t']);

/** With SELinux: whether our HAProxy has its domain, and may bind the ports of this configuration. */
export async function checkSelinux(of: Host, area: Area, ports: readonly number[]): Promise<Check[]> {
  if (answered(await of.run('selinuxenabled', [])).code !== 0) return [];
  const modules = answered(await of.run('semodule', ['-l']));
  if (modules.code !== 0) return [area.warn('selinux', 'its modules cannot be listed', 'run doctor as root')];
  if (!modules.stdout.split('\n').some((line) => line.trim().split(/\s/)[0] === 'bornemisza'))
    return [
      area.fail(
        'selinux',
        'SELinux is on and the module bornemisza is not loaded: our HAProxy cannot start',
        'dnf install bornemisza-selinux',
      ),
    ];
  const listed = answered(await of.run('semanage', ['port', '-l']));
  if (listed.code !== 0)
    return [
      area.warn(
        'selinux',
        'the module bornemisza is loaded; the types of its ports cannot be listed',
        'dnf install policycoreutils-python-utils, then run doctor as root again',
      ),
    ];
  const types = readPortTypes(listed.stdout);
  const refused = ports.flatMap((port) => {
    const found = typeOf(types, port);
    if (found === undefined || ALLOWED_TYPES.has(found.type)) return [];
    // A type for exactly this port is replaced, not added.
    return [{ port, type: found.type, verb: found.first === port && found.last === port ? '-m' : '-a' }];
  });
  const [first] = refused;
  if (first === undefined)
    return [area.ok('selinux', 'the module bornemisza is loaded and allows all ports')];
  return [
    area.fail(
      'selinux',
      `HAProxy may not listen on ${refused.map(({ port, type }) => `${port} (${type})`).join(', ')}`,
      `semanage port ${first.verb} -t http_port_t -p tcp ${first.port}`,
    ),
  ];
}

interface PortRange {
  readonly type: string;
  readonly first: number;
  readonly last: number;
}

/** Reads `semanage port -l`: `http_port_t  tcp  80, 81, 8443, 9000-9010` a line. */
function readPortTypes(text: string): PortRange[] {
  return text.split('\n').flatMap((line) => {
    const [, type = '', list = ''] = /^(\w+_t)\s+tcp\s+(.+)$/.exec(line.trim()) ?? [];
    return list.split(',').flatMap((each) => {
      const [, first, last] = /^\s*(\d+)(?:-(\d+))?\s*$/.exec(each) ?? [];
      return first === undefined ? [] : [{ type, first: Number(first), last: Number(last ?? first) }];
    });
  });
}

/** The narrowest range decides, as in the kernel's own list. */
function typeOf(types: readonly PortRange[], port: number): PortRange | undefined {
  return types
    .filter(({ first, last }) => first <= port && port <= last)
    .toSorted((a, b) => a.last - a.first - (b.last - b.first))[0];
}
