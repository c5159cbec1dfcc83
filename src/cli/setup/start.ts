import type { Role } from '../../daemon/membership/types.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Io } from '../io.ts';
import type { Step } from './steps.ts';

/** The unit's own TimeoutStartSec is 120 s. */
const START_MS = 150_000;

/** Last step of a set-up with `--start`: starts the daemon now and at each boot. */
export function startStep(io: Io, role: Role): Step {
  const command = ['enable', '--now', `bornemisza@${role}`];
  return {
    title: `start it: systemctl ${command.join(' ')}`,
    run: async () => {
      const { code, stderr } = await io.host.run('systemctl', command, { timeoutMs: START_MS });
      if (code === 0) return undefined;
      const [line = ''] = stderr.trim().split('\n');
      throw new CliFailure(
        EXIT.failure,
        'start-failed',
        `the node is set up, and bornemisza@${role} did not start: ${line}`,
        `journalctl -u bornemisza@${role} -n 50; then systemctl start bornemisza@${role}`,
      );
    },
  };
}
