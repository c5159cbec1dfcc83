import { styleText } from 'node:util';
import type { Paint } from '../../src/cli/paint.ts';
import { layOut, MEMBERS_HEAD, memberLine, serverWord } from '../../src/cli/screen.ts';
import type { Picture, ServerState, World } from './world.ts';

const paint: Paint = (format, text) => styleText(format, text, { stream: process.stdout });

export const KEYS = 'j join · k kill · c cut · l leave · r reboot all · s whole story · q quit';

/** One screen of the live cluster, at most `rows` lines of `columns` characters. */
export function draw(
  world: World,
  picture: Picture,
  note: string,
  size: { columns: number; rows: number },
): string {
  const members = picture.members.filter((each) => each.state !== 'left');
  const body = [
    `${paint('bold', 'Bornemisza')}  ${world.title}`,
    paint(
      'dim',
      `site ${world.site}   asked: ${picture.askedName}   ${new Date().toISOString().slice(11, 19)}`,
    ),
    '',
    paint('dim', MEMBERS_HEAD),
    ...members.map((member) => memberLine(member, paint)),
    '',
    ...[...picture.servers].map(
      ([edge, servers]) =>
        `${paint('bold', edge.padEnd(10))} ${servers
          .filter(shown)
          .map((server) => serverWord(server, paint))
          .join('  ')}`,
    ),
    '',
    picture.announcers === undefined
      ? paint('dim', 'no router here: this variant has no BIRD')
      : 'floating IP sent to   ' +
        (picture.announcers.map((host) => paint('green', host)).join('  ') || paint('red', 'nobody')),
    `CouchDB cluster       ${[...picture.couch].map(couchWord).join('  ')}`,
    '',
    paint('dim', 'what happened'),
  ];
  const foot = ['', note === '' ? '' : paint('cyan', note), paint('dim', KEYS)];
  // On a small screen the middle gives way, never the title, the note and the keys.
  return layOut({ body, events: picture.events, foot }, size, paint);
}

/** The second, unwatched check of a server is a detail of the plugin; page and API are one program. */
function shown({ server }: ServerState): boolean {
  return /^(db_nodes|svc_(?!api)\w+|couchdb_\w+)\/\w+$/.test(server);
}

function couchWord([host, answer]: [
  string,
  { connected: readonly string[]; members: readonly string[] } | undefined,
]): string {
  if (answer === undefined) return `${host} ${paint('red', 'silent')}`;
  const whole = answer.connected.length === answer.members.length;
  return `${host} ${paint(whole ? 'green' : 'yellow', `${answer.connected.length}/${answer.members.length}`)}`;
}
