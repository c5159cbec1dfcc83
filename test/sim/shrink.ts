import { type Outcome, type RunOptions, runScenario, type Scenario } from './scenario.ts';

/** The smallest scenario found that fails the same invariant: fewer actions first, then fewer hosts. */
export interface Shrunk {
  readonly scenario: Scenario;
  readonly outcome: Outcome;
  readonly runs: number;
}

/** A scenario takes up to a second: this many runs are a minute or two at most. */
const MOST_RUNS = 120;

export function shrink(scenario: Scenario, outcome: Outcome, options: RunOptions): Shrunk {
  const invariant = outcome.violations[0]?.invariant;
  let best: Shrunk = { scenario, outcome, runs: 0 };
  let runs = 0;
  const tryOne = (candidate: Scenario): boolean => {
    if (runs >= MOST_RUNS) return false;
    runs += 1;
    const result = runScenario(candidate, options);
    if (!result.violations.some((violation) => violation.invariant === invariant)) return false;
    best = { scenario: candidate, outcome: result, runs };
    return true;
  };
  let progress = true;
  while (progress)
    progress = withFewerActions(best.scenario).some(tryOne) || withFewerHosts(best.scenario).some(tryOne);
  return { ...best, runs };
}

function withFewerActions(scenario: Scenario): Scenario[] {
  const { actions } = scenario;
  const half = Math.ceil(actions.length / 2);
  const without: Scenario[] =
    actions.length > 2
      ? [
          { ...scenario, actions: actions.slice(0, half) },
          { ...scenario, actions: actions.slice(half) },
        ]
      : [];
  for (let index = 0; index < actions.length; index += 1)
    without.push({ ...scenario, actions: actions.filter((_, at) => at !== index) });
  return without;
}

function withFewerHosts(scenario: Scenario): Scenario[] {
  const named = scenario.actions.flatMap((action) => {
    if (action.kind === 'partition') return action.hosts;
    if (action.kind === 'slander') return [action.host, action.subject];
    return 'host' in action ? [action.host] : [];
  });
  const least = Math.max(2, ...named.map((host) => host + 1));
  return least < scenario.nodes
    ? [
        { ...scenario, nodes: least },
        { ...scenario, nodes: scenario.nodes - 1 },
      ]
    : [];
}
