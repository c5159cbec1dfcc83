import { released } from '../../roles/guards.ts';
import type { Done } from '../control/api.ts';
import type { Identity } from '../identity/identity.ts';
import { changeOrUndo, type LocalStateFile } from '../local-state.ts';
import type { CurrentNode } from './current.ts';
import { mustNotBeLast } from '../control/operator-guards.ts';
import { guardMemory } from './scene.ts';

interface DutyDependencies {
  readonly local: Pick<LocalStateFile, 'state' | 'update'>;
  readonly node: Pick<CurrentNode, 'last' | 'operatorDid' | 'turn'>;
  readonly retryNow: (reason: string) => void;
}

/** The operator's orders for this node's traffic and for held changes. */
export class Duty {
  readonly #identity: Pick<Identity, 'name' | 'role'>;
  readonly #dependencies: DutyDependencies;

  constructor(identity: Pick<Identity, 'name' | 'role'>, dependencies: DutyDependencies) {
    this.#identity = identity;
    this.#dependencies = dependencies;
  }

  /** @throws OperatorError `guard-last-of-role`; IdentityError `disk-full` and the like, and nothing changed then */
  async maintenance({ on, force }: { readonly on: boolean; readonly force?: boolean }): Promise<Done> {
    const { local, node } = this.#dependencies;
    if (on && force !== true) mustNotBeLast(this.#identity, node.last.view, 'maintenance');
    await changeOrUndo(local, { maintenance: on });
    node.operatorDid(`maintenance ${on ? 'on' : 'off'}`);
    node.turn(`maintenance ${on ? 'on' : 'off'} by the operator`);
    return {
      done: true,
      message: on
        ? `${this.#identity.name} gets no traffic, also after a reboot, until \`bornemisza maintenance off\``
        : `${this.#identity.name} gets traffic again as soon as its checks pass`,
    };
  }

  async releaseGuards(): Promise<Done> {
    const { local, node, retryNow } = this.#dependencies;
    const held = node.last.view.held.length;
    await local.update({ guards: released(guardMemory(local.state)) });
    node.operatorDid('guards released');
    node.turn('guards released by the operator');
    retryNow('guards released by the operator');
    return { done: true, message: held === 0 ? 'no guard held anything' : `${held} held, now released` };
  }
}
