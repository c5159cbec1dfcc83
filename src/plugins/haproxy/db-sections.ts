import { localBackend, localServer, peerBackends, COUCHDB_CHECK } from './backends.ts';
import type { DbHaproxy } from './desired.ts';
import { DATABASE_SWITCH, VOUCHED_SECONDS, type WantedServer } from './rendered.ts';
import {
  type Context,
  type Section,
  FEED_TIMEOUT,
  door,
  FEEDS,
  QUIET_CHECKS,
  IDEMPOTENT_ONLY,
} from './sections.ts';
import { ipv4, port } from './values.ts';

/** A db node’s two doors to its CouchDB, and who may create and delete databases. */

/** Seconds; about as long as CouchDB needs after a partition ends. */
const ASK_AGAIN_AFTER = 5;

/** As CouchDB puts it. Between single quotes in the file, so it holds none. */
const refusal = (reason: string): string => JSON.stringify({ error: 'service unavailable', reason });

const DISAGREEMENT = refusal(
  'Not all db nodes are connected and agree. Creating or deleting a database during a partition can lose ' +
    'documents. Retry later: `bornemisza status` on a db node shows the missing node and the next step.',
);

const silence = (address: string): string =>
  refusal(
    `The daemon of the db node ${address} has not reported for ${VOUCHED_SECONDS} s and would not notice a ` +
      'partition. Creating or deleting a database during a partition can lose documents. Retry, since ' +
      'another db node may answer, and start the daemon: `systemctl start bornemisza@db`.',
  );

/**
 * Creating and deleting a database, and nothing else: CouchDB splits the path at slashes, however many, before it
 * decodes it, takes a method from a header of a POST, and has one other thing to DELETE at the top, the session.
 */
const DATABASE_EDITS = [
  '{ method PUT DELETE }',
  '{ method POST } { req.hdr(X-HTTP-Method-Override) -m found }',
].map((method) => `${method} { path_reg ^/+[^/]+/*$ } !{ path /_session }`);

function refuseDatabaseEdits({ privateAddress }: DbHaproxy): string[] {
  const { backend, name } = DATABASE_SWITCH;
  const reasons = [
    [`!{ str(${name}),in_table(${backend}) }`, silence(ipv4('private address', privateAddress))],
    [`{ nbsrv(${backend}) eq 0 }`, DISAGREEMENT],
  ];
  return reasons.flatMap(([condition, body]) =>
    DATABASE_EDITS.map(
      (edit) =>
        `http-request return status 503 content-type application/json hdr Retry-After ${ASK_AGAIN_AFTER} ` +
        `string '${body}' if ${edit} ${condition}`,
    ),
  );
}

function databaseSwitch({ databases, couchdbPort }: DbHaproxy, context: Context): Section {
  const { given, why, subjects = [] } = databases ?? { given: false, why: 'not known yet' };
  const server: WantedServer = {
    ...DATABASE_SWITCH,
    address: '127.0.0.1',
    port: port('port', couchdbPort),
    options: 'no-check',
    duty: given ? 'ready' : 'maint',
    why: given ? why : `creating and deleting databases is refused: ${why}`,
    subjects,
    // It changes at run time, so it is no part of the structure.
    peer: true,
  };
  context.servers.push(server);
  const vouched = `stick-table type string size 1 expire ${VOUCHED_SECONDS}s`;
  return { head: `backend ${server.backend}`, lines: ['no log', vouched], servers: [server] };
}

/**
 * CouchDB locks an account by name and address, and reads the last address of this header from a peer on loopback.
 * Without it all clients and the daemon are 127.0.0.1 to CouchDB, and a client's wrong passwords lock the daemon out.
 */
const CLIENT_ADDRESS = 'http-request set-header X-Forwarded-For %[src]';

export function dbSections(desired: DbHaproxy, context: Context): Section[] {
  const lines = [...COUCHDB_CHECK, 'balance leastconn', 'option allbackups', IDEMPOTENT_ONLY, FEEDS];
  const only = {
    backend: 'couchdb_local',
    lines: [...COUCHDB_CHECK, IDEMPOTENT_ONLY, FEEDS],
    port: desired.couchdbPort,
  };
  return [
    {
      head: 'frontend app_door',
      lines: [
        ...door(desired.privateAddress, desired.appDoorPort, 'app', context),
        QUIET_CHECKS,
        `timeout client ${FEED_TIMEOUT}`,
        CLIENT_ADDRESS,
        ...refuseDatabaseEdits(desired),
        // The check is about this node, not about its peers.
        'use_backend couchdb_local if { path /_up }',
        'default_backend couchdb',
      ],
    },
    {
      head: 'frontend peer_door',
      lines: [
        ...door(desired.privateAddress, desired.peerDoorPort, 'db', context),
        QUIET_CHECKS,
        `timeout client ${FEED_TIMEOUT}`,
        // A failed-over request has the client's address from the other db node's door.
        `${CLIENT_ADDRESS} unless { req.hdr(X-Forwarded-For) -m found }`,
        // A failed-over answer is as old as the state of the door that it came by.
        ...refuseDatabaseEdits(desired),
        'default_backend couchdb_local',
      ],
    },
    ...peerBackends('couchdb', lines, desired.peers, ' backup', context, [
      localServer('couchdb', desired.couchdbPort),
    ]),
    localBackend(only, context),
    databaseSwitch(desired, context),
  ];
}
