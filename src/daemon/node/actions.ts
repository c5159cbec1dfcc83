import type { CouchDbStatus } from '../../plugins/couchdb/plugin.ts';
import { AccountOrders } from '../accounts/orders.ts';
import type { ControlActions } from '../control/server.ts';
import type { Done } from '../control/api.ts';
import { hasNextStep } from '../errors.ts';
import { Answers } from './answers.ts';
import type { Assembly, NodeDependencies, NodeHooks, NodeOptions, NodeParts } from './assemble.ts';
import { Duty } from './duty.ts';
import { endStreams, flowOf } from '../control/flow.ts';
import { Leave } from '../control/leave.ts';
import { logRequests } from '../control/request-log.ts';
import type { Phase } from './look.ts';
import { testNotification } from '../notification/test-run.ts';
import type { Warning } from '../control/api.ts';

/** What an operator's orders need from a node. */
export interface OrderedNode extends NodeHooks {
  readonly refusedReload: Warning | undefined;
  enter(phase: Phase): void;
  /** CouchDB must not be started again here. */
  retireCouchDb(): Promise<void>;
  reload(): Promise<Done>;
}

/** The calls of the control socket, and the part that handles each. */
export function actionsOf(
  node: OrderedNode,
  assembly: Assembly,
  parts: NodeParts,
  { paths }: NodeOptions,
  { clock, log, end }: NodeDependencies,
): ControlActions {
  const { identity, local, checks, audit, startedMs } = parts;
  const { registrar, roots, rollout, notifier, reconciler, driver, peers } = assembly;
  const answers = new Answers(identity, { ...assembly, clock, startedMs, node, local, checks });
  const duty = new Duty(identity, { local, node, retryNow: (reason) => reconciler.retryNow(reason) });
  const couchdb = () => assembly.programs.report('couchdb') as CouchDbStatus | undefined;
  const flow = flowOf(reconciler);
  const leave = new Leave(identity, { reconciler, driver, clock, node, local, checks, couchdb, flow, end });
  const orders = new AccountOrders(identity, { socket: paths.accountsSocket, audit });
  return {
    status: () => answers.status(),
    members: () => answers.members(),
    plan: () => answers.plan(),
    traffic: flow.traffic,
    endStreams: (request) => endStreams(request, local, flow),
    trails: (question) => peers.trails(question),
    ping: (other) => peers.ping(other),
    maintenance: (request) => duty.maintenance(request),
    logRequests: (request) => logRequests(request, identity, { local, node, clock }),
    releaseGuards: () => duty.releaseGuards(),
    leave: (request, progress) => leave.run(request, progress),
    tokens: () => registrar.tokens(),
    createTokens: (request) => registrar.createTokens(request),
    revokeTokens: (request) => registrar.revokeTokens(request),
    remove: (request) => registrar.remove(request),
    adoptAuthority: () => registrar.adopt(),
    changeRoot: () => roots.take(),
    testNotification: (progress) => testNotification(notifier, identity, paths.config, progress),
    ask: (program, verb, request) => reconciler.ask(program, verb, request),
    reload: () =>
      node.reload().catch((error: unknown) => {
        if (hasNextStep(error)) log.error({ code: error.code, next: error.next }, error.message);
        throw error;
      }),
    upgrade: () => rollout.answer(),
    rollout: (verb) => {
      const done = rollout[verb]();
      node.operatorDid(`upgrade ${verb}`);
      return done;
    },
    accounts: (after) => orders.list(after),
    account: (email) => orders.show(email),
    changeAccount: (verb, email) => orders.change(verb, email),
  };
}
