import { styleText } from 'node:util';
import type { MemberRow } from '../../src/daemon/control/api.ts';
import type { Picture, ServerState, World } from './world.ts';

type Colour = 'green' | 'red' | 'yellow' | 'dim' | 'bold' | 'cyan';
const paint = (colour: Colour, text: string): string => styleText(colour, text, { stream: process.stdout });

export const KEYS = 'j join · k kill · c cut · l leave · r reboot all · s whole story · q quit';

/** One screen of the live cluster, at most `rows` lines of `columns` characters. */
export function draw(
  world: World,
  picture: Picture,
  note: string,
  size: { columns: number; rows: number },
): string {
  const members = picture.members.filter((each) => each.state !== 'left');
  const lines = [
    `${paint('bold', 'Bornemisza')}  ${world.title}`,
    paint(
      'dim',
      `site ${world.site}   asked: ${picture.askedName}   ${new Date().toISOString().slice(11, 19)}`,
    ),
    '',
    paint('dim', 'NODE        ADDRESS       STATE     HEALTH  TRAFFIC    WHY'),
    ...members.map(memberLine),
    '',
    ...[...picture.servers].map(
      ([edge, servers]) =>
        `${paint('bold', edge.padEnd(10))} ${servers.filter(shown).map(serverWord).join('  ')}`,
    ),
    '',
    picture.announcers === undefined
      ? paint('dim', 'no router here: this variant has no BIRD')
      : 'floating IP drawn by  ' +
        (picture.announcers.map((host) => paint('green', host)).join('  ') || paint('red', 'nobody')),
    `CouchDB cluster       ${[...picture.couch].map(couchWord).join('  ')}`,
    '',
    paint('dim', 'what happened'),
  ];
  const foot = ['', note === '' ? '' : paint('cyan', note), paint('dim', KEYS)];
  const room = Math.max(0, size.rows - lines.length - foot.length);
  const events = (room === 0 ? [] : picture.events.slice(-room)).map((entry) => {
    const colour: Colour =
      entry.result === 'failed' || entry.result === 'rolled-back'
        ? 'red'
        : entry.result === 'held'
          ? 'yellow'
          : 'dim';
    return (
      `${paint('dim', entry.at.slice(11, 19))} ` +
      (entry.result === 'ok' || entry.result === 'info' ? entry.summary : paint(colour, entry.summary))
    );
  });
  // On a small screen the middle gives way, never the title, the note and the keys.
  const body = [...lines, ...events].slice(0, Math.max(1, size.rows - foot.length));
  return [...body, ...foot].map((line) => cut(line, size.columns)).join('\n');
}

function memberLine(member: MemberRow): string {
  const { name, address, state, health, rotation, reason } = member;
  const stateColour: Colour = state === 'alive' ? 'green' : state === 'dead' ? 'red' : 'yellow';
  const trafficColour: Colour = rotation === 'in' ? 'green' : rotation === 'out' ? 'red' : 'yellow';
  return (
    `${name.padEnd(11)} ${address.padEnd(13)} ${paint(stateColour, state.padEnd(9))} ` +
    `${paint(health === 'up' ? 'green' : 'red', health.padEnd(7))} ` +
    `${paint(trafficColour, rotation.padEnd(10))} ${paint('dim', reason)}`
  );
}

/** The second, unwatched check of a server is a detail of the plugin. */
function shown({ server }: ServerState): boolean {
  return /^(db_nodes|svc_\w+|couchdb_\w+)\/\w+$/.test(server);
}

function serverWord({ server, status }: ServerState): string {
  const colour: Colour =
    status.startsWith('UP') || status === 'no check'
      ? 'green'
      : status.startsWith('MAINT')
        ? 'yellow'
        : 'red';
  return `${paint('dim', server.replace(/^svc_/, ''))} ${paint(colour, status)}`;
}

function couchWord([host, answer]: [
  string,
  { connected: readonly string[]; members: readonly string[] } | undefined,
]): string {
  if (answer === undefined) return `${host} ${paint('red', 'silent')}`;
  const whole = answer.connected.length === answer.members.length;
  return `${host} ${paint(whole ? 'green' : 'yellow', `${answer.connected.length}/${answer.members.length}`)}`;
}

/** Cuts to a width without cutting an escape sequence, and says with `…` that it did. */
function cut(line: string, columns: number): string {
  let width = 0;
  let out = '';
  // oxlint-disable-next-line no-control-regex -- colour sequences begin with ESC
  for (const part of line.split(/(\u001B\[[0-9;]*m)/)) {
    if (part.startsWith('\u001B')) {
      out += part;
    } else {
      const left = Math.max(0, columns - width);
      out += part.length > left && left > 0 ? `${part.slice(0, left - 1)}…` : part.slice(0, left);
      width += part.length;
    }
  }
  return out;
}
