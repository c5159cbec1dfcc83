import type { Founded, InitRequest } from '../../daemon/identity/root/init-cluster.ts';
import { printJson } from '../answer.ts';
import type { InitOptions } from './options.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Io } from '../io.ts';
import { type NodeSetup, prepare } from './node-setup.ts';
import { readSecret } from './recovery-input.ts';
import { usualPlace, writeRecovery } from './recovery-output.ts';
import { stateWork } from './state-work.ts';
import { startStep } from './start.ts';
import { runSteps, showSteps, type Step } from './steps.ts';

/** Creates a cluster. The identity comes last: while it is missing, the same command continues where it stopped. */
export async function initNode(io: Io, options: InitOptions): Promise<void> {
  const secrets = await givenSecrets(options);
  const recovered = await recoveredCluster(io, options, secrets);
  const setup = await prepare(io, options, { role: options.role, cluster: options.cluster ?? recovered });
  await refuseSecond(io, setup, options.reset === true);
  const { host, cluster } = setup.config.node;
  let made: Founded | undefined;
  const identity: Step = {
    title: `create the cluster ${cluster}: its CA, and the keys of ${host}/${setup.role}`,
    run: async () => {
      made = await stateWork(io, setup.root, 'init', {
        stateDir: setup.paths.state,
        cluster,
        host,
        role: setup.role,
        address: setup.config.network.private_address,
        nowMs: Date.now(),
        ...secrets,
      });
      return undefined;
    },
  };
  const json = options.json === true;
  const steps = [...setup.steps, ...resetSteps(io, setup, options.reset === true), identity];
  if (options.dryRun === true) {
    showSteps(io, setup, [...steps, ...later(io, setup, options)], json);
    return;
  }
  await runSteps(io, setup.facts, steps, json);
  if (made === undefined) throw new Error('the identity step ended without a result');
  const recovery = await writeRecovery(io, {
    ...made,
    passphrase: options.passphraseFile === undefined ? made.passphrase : undefined,
    file: options.recoveryFile,
    root: setup.root,
    json,
    reachedAt: setup.reachedAt,
  });
  try {
    if (options.start === true) await startStep(io, setup.role).run();
    if (json) {
      const { peerId, name, rootFingerprint } = made;
      printJson(io, {
        cluster,
        name,
        role: setup.role,
        peerId,
        rootFingerprint,
        recoveryFile: recovery.file,
      });
    } else io.stdout.write(nextText(setup.role, options.start === true));
  } finally {
    // Also after a failed start: the passphrase exists nowhere else. Last, so that it does not scroll away.
    await recovery.handOver();
  }
}

const nextText = (role: string, started: boolean): string =>
  [
    '\nNext:',
    ...(started ? [] : [`  systemctl enable --now bornemisza@${role}`]),
    `  bornemisza doctor --role ${role}`,
    'and for further machines, here:',
    '  bornemisza token create --role app        (or --role db; --count 3 for three)',
    'there, with a token each:',
    '  sudo bornemisza join --start              (paste the token)',
    '',
  ].join('\n');

/** What follows the identity, for `--dry-run`: both are done after the bundle exists. */
function later(io: Io, setup: NodeSetup, options: InitOptions): Step[] {
  const { recoveryFile, start = false } = options;
  const { root, role } = setup;
  const file = recoveryFile ?? usualPlace({ root, cluster: setup.config.node.cluster });
  const title = `write the recovery bundle to ${file}`;
  return [{ title, run: async () => undefined }, ...(start ? [startStep(io, role)] : [])];
}

async function refuseSecond(io: Io, setup: NodeSetup, reset: boolean): Promise<void> {
  if (reset || (await stateWork(io, setup.root, 'state', { stateDir: setup.paths.state })) !== 'complete')
    return;
  const { host, cluster } = setup.config.node;
  throw new CliFailure(
    EXIT.failure,
    'already-initialised',
    `this host is ${host}/${setup.role} of cluster ${cluster} already`,
    `start it: systemctl enable --now bornemisza@${setup.role}; or move its identity aside and start over: --reset`,
  );
}

export function resetSteps(io: Io, setup: NodeSetup, reset: boolean): Step[] {
  if (!reset) return [];
  return [
    {
      title: `move the identity in ${setup.paths.state} aside`,
      run: async () => {
        const aside = await stateWork(io, setup.root, 'reset', { stateDir: setup.paths.state });
        return aside === '' ? 'There was none.' : `It is in ${aside}.`;
      },
    },
  ];
}

/**
 * The cluster of the bundle that `--recover` names, opened before anything is written or moved aside.
 *
 * @throws CliFailure `passphrase-short`, `recovery-malformed`, `recovery-passphrase-wrong`, `recovery-other-cluster`
 */
async function recoveredCluster(
  io: Io,
  { cluster, root = '' }: InitOptions,
  secrets: Secrets,
): Promise<string | undefined> {
  if (secrets.passphrase === undefined && secrets.recovery === undefined) return undefined;
  const found = await stateWork(io, root, 'check-recovery', secrets);
  if (found === '') return undefined;
  if (cluster === undefined || cluster === found) return found;
  throw new CliFailure(
    EXIT.failure,
    'recovery-other-cluster',
    `the recovery bundle is of the cluster ${found}, not of ${cluster}`,
    `give --cluster ${found}, or none, or the bundle of ${cluster}`,
  );
}

type Secrets = Pick<InitRequest, 'passphrase' | 'recovery'>;

async function givenSecrets({ passphraseFile, recover }: InitOptions): Promise<Secrets> {
  if (recover !== undefined && passphraseFile === undefined) {
    throw new CliFailure(
      EXIT.usage,
      'usage',
      '--recover needs --passphrase-file',
      'put the passphrase of the bundle into a file that only root can read',
    );
  }
  if (passphraseFile === undefined) return {};
  const passphrase = (await readSecret(passphraseFile, '--passphrase-file')).trim();
  if (recover === undefined) return { passphrase };
  const text = await readSecret(recover, '--recover');
  // The file that `init` wrote has text for people above the bundle.
  const bundle = text.slice(Math.max(0, text.indexOf('-----BEGIN')));
  return { recovery: { bundle, passphrase } };
}
