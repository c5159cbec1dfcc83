import type {
  CertificateFacts,
  HaproxyFacts,
  MemberRow,
  StatusAnswer,
  UpgradeAnswer,
} from '../control/api.ts';
import type { Role } from '../membership/types.ts';
import type { Family, Sample } from './exposition.ts';
import type { ProcessFacts } from './process-facts.ts';

/** The input of a scrape: the answers of `status`, `members` and `upgrade status`, and facts of the process. */
export interface MetricsFacts {
  readonly status: StatusAnswer;
  readonly members: readonly MemberRow[];
  readonly upgrade: UpgradeAnswer;
  /** When the founder's own certificate of the site ends, in ms since the epoch. */
  readonly siteEndMs: number | undefined;
  readonly process: ProcessFacts;
  readonly wallMs: number;
}

/** Names and units follow Prometheus' conventions; docs/metrics.md has a row for each. Pure. */
export function familiesOf(facts: MetricsFacts): Family[] {
  return [
    ...nodeFamilies(facts),
    ...memberFamilies(facts),
    ...trafficFamilies(facts.status),
    ...programFamilies(facts),
    ...haproxyFamilies(facts.status),
    counter(
      'unit_restarts',
      'Restarts of a unit of this node by systemd, since somebody started it last.',
      ...facts.status.restarts.map(({ unit, restarts }) => ({ labels: { unit }, value: restarts })),
    ),
    ...floatingFamilies(facts),
    ...rolloutFamilies(facts.upgrade),
    ...certificateFamilies(facts),
    ...processFamilies(facts),
  ];
}

const gauge = (name: string, help: string, ...samples: readonly Sample[]): Family => ({
  name: `bornemisza_${name}`,
  help,
  type: 'gauge',
  samples,
});
const counter = (name: string, help: string, ...samples: readonly Sample[]): Family => ({
  name: `bornemisza_${name}_total`,
  help,
  type: 'counter',
  samples,
});
const flag = (is: boolean): Sample => ({ value: is ? 1 : 0 });
const count = (all: readonly unknown[], labels: Readonly<Record<string, string>> = {}): Sample => ({
  labels,
  value: all.length,
});

function nodeFamilies({ status, members }: MetricsFacts): Family[] {
  const { version, cluster, name, role, checks, held, warnings } = status;
  const self = members.find((each) => each.self);
  const codes = [...new Set(warnings.map(({ code }) => code))];
  const guards = [...new Set(held.map(({ code }) => code))];
  return [
    gauge('build_info', 'Version of the daemon, always 1.', {
      labels: { version, cluster, node: name, role, nodejs: process.version },
      value: 1,
    }),
    gauge('node_up', 'Whether this node is healthy: all required checks pass.', flag(status.health === 'up')),
    gauge(
      'node_in_maintenance',
      'Whether an operator took this node out of traffic.',
      flag(status.maintenance),
    ),
    gauge(
      'node_in_traffic',
      'Whether this node gets traffic, as it sees itself.',
      flag(self?.rotation === 'in'),
    ),
    gauge('node_synced', 'Whether this node has reached a peer since its start.', flag(status.synced)),
    gauge(
      'check_up',
      'Whether a check of this node passes.',
      ...checks.map((check) => ({
        labels: { check: check.name, required: String(check.required) },
        ...flag(check.health === 'up'),
      })),
    ),
    gauge('guards_holding', 'How many things the guards hold back.', count(held)),
    gauge(
      'guard_holding',
      'How many things one guard holds back; absent while it holds none.',
      ...guards.map((guard) =>
        count(
          held.filter(({ code }) => code === guard),
          { guard },
        ),
      ),
    ),
    gauge(
      'warnings',
      'Notes of `bornemisza status` by their code; absent while there is none.',
      ...codes.map((code) =>
        count(
          warnings.filter((each) => each.code === code),
          { code },
        ),
      ),
    ),
  ];
}

const STATES = ['alive', 'suspect', 'dead', 'leaving', 'left', 'absent'] as const;
const ROLES: readonly Role[] = ['app', 'db'];

function memberFamilies({ members, status }: MetricsFacts): Family[] {
  const { counters } = status;
  return [
    gauge(
      'members',
      'Members of the cluster by role and state, as this node sees them, itself included.',
      ...ROLES.flatMap((role) =>
        STATES.map((state) =>
          count(
            members.filter((each) => each.role === role && each.state === state),
            { role, state },
          ),
        ),
      ),
    ),
    gauge(
      'members_in_traffic',
      'Members that get traffic, as this node sees them.',
      ...ROLES.map((role) =>
        count(
          members.filter((each) => each.role === role && each.rotation === 'in'),
          { role },
        ),
      ),
    ),
    counter('suspicions', 'How often this node held another node suspect.', {
      value: counters['suspicions'] ?? 0,
    }),
    counter('deaths', 'How often this node held another node dead.', { value: counters['deaths'] ?? 0 }),
  ];
}

/** The daemons’ own traffic. */
function trafficFamilies({ counters }: StatusAnswer): Family[] {
  const of = (key: string, labels: Readonly<Record<string, string>>): Sample => ({
    labels,
    value: counters[key] ?? 0,
  });
  return [
    gauge('links', 'Links with other daemons that are up.', {
      value: (counters['linksUp'] ?? 0) - (counters['linksDown'] ?? 0),
    }),
    counter(
      'membership_bytes',
      'Bytes of the messages between daemons, before TLS.',
      of('gossipInBytes', { via: 'gossip', direction: 'in' }),
      of('gossipOutBytes', { via: 'gossip', direction: 'out' }),
      of('framesInBytes', { via: 'link', direction: 'in' }),
      of('framesOutBytes', { via: 'link', direction: 'out' }),
    ),
    counter(
      'membership_messages',
      'Messages between daemons.',
      of('gossipIn', { via: 'gossip', direction: 'in' }),
      of('gossipOut', { via: 'gossip', direction: 'out' }),
      of('framesIn', { via: 'link', direction: 'in' }),
      of('framesOut', { via: 'link', direction: 'out' }),
    ),
    counter(
      'messages_refused',
      'Messages of other daemons that were refused or not forwarded, by reason.',
      of('faults', { reason: 'fault' }),
      of('overdone', { reason: 'overdone' }),
      of('later', { reason: 'later_version' }),
      of('notHandedOn', { reason: 'repeated' }),
    ),
    counter(
      'connections_refused',
      'Connections to the daemon’s port that were refused: by a limit, or because the peer is no member.',
      of('connectionsRefused', { reason: 'limit' }),
      of('strangersRefused', { reason: 'stranger' }),
    ),
  ];
}

function programFamilies({ status, wallMs }: MetricsFacts): Family[] {
  const { plugins } = status;
  const of = (value: (plugin: StatusAnswer['plugins'][number]) => number): Sample[] =>
    plugins.map((plugin) => ({ labels: { program: plugin.name }, value: value(plugin) }));
  return [
    counter(
      'reconcile_runs',
      'Runs of the reconciler for a program of this node.',
      ...of(({ runs }) => runs),
    ),
    counter('reconcile_failures', 'Runs that failed.', ...of(({ failed }) => failed)),
    counter('reconcile_changes', 'Changes that were made.', ...of(({ changes }) => changes)),
    counter(
      'reconcile_seconds',
      'Time that runs took, waiting included.',
      ...of(({ busyMs }) => busyMs / 1000),
    ),
    gauge(
      'program_converged',
      'Whether a program is in its desired state.',
      ...of(({ state }) => (state === 'converged' ? 1 : 0)),
    ),
    gauge(
      'program_last_converged_timestamp_seconds',
      'When a run last found the program in its desired state, or brought it there.',
      ...plugins.flatMap(({ name, lastConvergedAgoMs }) =>
        lastConvergedAgoMs === undefined
          ? []
          : [{ labels: { program: name }, value: (wallMs - lastConvergedAgoMs) / 1000 }],
      ),
    ),
    gauge(
      'program_alarms',
      'Alarms of a program, by code: an operator must act.',
      ...of(({ alarms }) => alarms.length),
    ),
  ];
}

/** What HAProxy's own exporter does not show: it knows one process. */
function haproxyFamilies({ plugins }: StatusAnswer): Family[] {
  const facts = plugins.find(({ name }) => name === 'haproxy')?.facts as HaproxyFacts | undefined;
  if (facts === undefined) return [];
  const { processes, connections } = facts.old;
  return [
    gauge('haproxy_old_processes', 'Processes of before the last reloads that still run.', {
      value: processes,
    }),
    gauge('haproxy_old_connections', 'Connections in these processes.', { value: connections }),
  ];
}

function floatingFamilies({ status, members }: MetricsFacts): Family[] {
  const { floating, announcing } = status;
  if (floating.length === 0 || announcing === undefined) return [];
  const seen = members.find(({ self }) => self)?.tags['floating'];
  return [
    gauge('floating_ips', 'Floating IPs in the configuration.', count(floating)),
    gauge('floating_ip_wanted', 'Whether this node should have the floating IPs.', flag(announcing)),
    gauge(
      'floating_ip_held',
      'Whether it was observed to have them: exported to a neighbour by BIRD, or on the public device.',
      flag(seen === 'exported' || seen === 'held'),
    ),
  ];
}

const ROLLOUT = ['none', 'running', 'finished', 'stopped'] as const;
const STEPS = ['waiting', 'working', 'done', 'failed'] as const;

function rolloutFamilies({ state, hosts }: UpgradeAnswer): Family[] {
  return [
    gauge(
      'rollout_state',
      'State of the rollout of a newer package: 1 for the present state.',
      ...ROLLOUT.map((each) => ({ labels: { state: each }, ...flag(each === state) })),
    ),
    gauge(
      'rollout_hosts',
      'Hosts of the rollout by step.',
      ...STEPS.map((step) =>
        count(
          hosts.filter((host) => host.step === step),
          { step },
        ),
      ),
    ),
  ];
}

function certificateFamilies({ status, members, siteEndMs }: MetricsFacts): Family[] {
  const own = Date.parse(members.find(({ self }) => self)?.certificateNotAfter ?? '');
  const { facts } = status.plugins.find(({ name }) => name === 'certificates') ?? {};
  const ordered = Date.parse((facts as CertificateFacts | undefined)?.current?.ends ?? '');
  const site = siteEndMs ?? ordered;
  const ends: readonly (readonly [string, number])[] = [
    ['node', own],
    ['site', site],
  ];
  return [
    gauge(
      'certificate_not_after_timestamp_seconds',
      'When a certificate that this node shows ends: its own, and the site’s.',
      ...ends
        .filter(([, atMs]) => !Number.isNaN(atMs))
        .map(([certificate, atMs]) => ({ labels: { certificate }, value: atMs / 1000 })),
    ),
  ];
}

/** The names of `process_…` are those of all Prometheus clients. */
function processFamilies({ process: facts, wallMs, status }: MetricsFacts): Family[] {
  const { lag } = facts;
  const plain = (name: string, help: string, type: Family['type'], value: number): Family => ({
    name,
    help,
    type,
    samples: [{ value }],
  });
  return [
    {
      name: 'bornemisza_event_loop_lag_seconds',
      help: 'How late a timer of one second fired.',
      type: 'histogram',
      samples: [
        ...lag.buckets.map(
          ({ le, count: within }): Sample => ({
            suffix: '_bucket',
            labels: { le: le === Number.POSITIVE_INFINITY ? '+Inf' : String(le) },
            value: within,
          }),
        ),
        { suffix: '_sum', value: lag.sumSeconds },
        { suffix: '_count', value: lag.count },
      ],
    },
    counter('event_loop_busy_seconds', 'Time that the event loop was busy.', {
      value: facts.loopBusySeconds,
    }),
    plain(
      'process_cpu_seconds_total',
      'Total user and system CPU time spent in seconds.',
      'counter',
      facts.cpuSeconds,
    ),
    plain('process_resident_memory_bytes', 'Resident memory size in bytes.', 'gauge', facts.residentBytes),
    plain('bornemisza_heap_used_bytes', 'Memory that JavaScript uses.', 'gauge', facts.heapUsedBytes),
    plain(
      'process_start_time_seconds',
      'Start time of the process since unix epoch in seconds.',
      'gauge',
      (wallMs - status.upMs) / 1000,
    ),
  ];
}
