import type { Command } from 'commander';
import type { PlanAnswer } from '../../daemon/control/api.ts';
import { printJson } from '../answer.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { daemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor } from '../paint.ts';
import { renderTable, wrap } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

export function addPlan(program: Command, io: Io): void {
  addVerb(program, 'plan', {
    summary: 'show what the daemon would change now',
    description:
      'Compares the desired with the observed state of each program that the daemon manages, and shows the ' +
      'difference. Changes nothing.',
    examples: ['bornemisza plan', 'bornemisza plan --role app --json'],
    role: true,
    json: true,
  }).action(async (options: CommonOptions) => {
    const answer = await (await daemonOf(options)).get<PlanAnswer>('/v1/plan');
    if (options.json === true) printJson(io, answer);
    else io.stdout.write(renderPlan(answer, paintFor(io.stdout), io.stdout.columns));
    const failed = answer.plugins.find((each) => each.error !== undefined);
    if (failed?.error !== undefined) {
      throw new CliFailure(
        EXIT.failure,
        failed.error.code,
        `${failed.name}: ${failed.error.message}`,
        failed.error.next,
      );
    }
  });
}

function renderPlan(answer: PlanAnswer, paint: Paint, columns: number): string {
  const rows = answer.plugins.flatMap((plugin) =>
    plugin.changes.map((change) => [plugin.name, change.kind, change.summary]),
  );
  const right = answer.plugins
    .filter((each) => each.error === undefined && each.changes.length === 0)
    .map((each) => each.name);
  const rest = right.length === 0 ? '' : wrap(`Nothing to change: ${right.join(', ')}.`, columns);
  return rows.length === 0
    ? rest
    : `${renderTable(['PROGRAM', 'KIND', 'CHANGE'], rows, { columns, paint })}${rest}`;
}
