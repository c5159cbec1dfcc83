import type { Command } from 'commander';
import type { Io } from '../io.ts';
import { addSetupOptions, type InitOptions } from '../setup/options.ts';
import { addVerb, roleOption } from '../verb.ts';

export function addInit(program: Command, io: Io): void {
  const init = addVerb(program, 'init', {
    summary: 'create a new cluster, with this machine as its first node',
    description:
      'Creates a new cluster on its first machine: configuration, keys, the cluster’s own CA. Detects ' +
      'devices, addresses and names, prints what it will do, does it, and prints the next steps. Needs ' +
      'root and a stopped daemon. Run it again if a run was interrupted.',
    examples: [
      'sudo bornemisza init --role app',
      'sudo bornemisza init --role app --dry-run',
      'sudo bornemisza init --role app --domain shop.example --agree-terms --dns-token-file /root/token ' +
        '--dns-zone-id 0123456789abcdef0123456789abcdef',
      'sudo bornemisza init --role db --cluster shop --private-address 10.0.0.21',
      'sudo bornemisza init --role app --floating-ip 203.0.113.10 --bgp-neighbor 169.254.169.254 ' +
        '--bgp-as 64515 --bgp-local-as 4288000123 --bgp-password-file /root/bgp --bgp-multihop 2',
      'sudo bornemisza init --role app --floating-ip 203.0.113.10 --floating-mode api ' +
        '--floating-provider digitalocean --floating-token-file /root/token',
    ],
    json: true,
    asRoot:
      'it creates users, directories and configuration; stateWork does what touches the daemon’s directories',
  })
    .addOption(roleOption('what this node does: app or db').makeOptionMandatory())
    .option('--cluster <name>', 'name of the cluster (default: from the domain of the host name)');
  addSetupOptions(init)
    .option(
      '--recovery-file <file>',
      'where to write the recovery bundle (default: /root/bornemisza-recovery-CLUSTER.txt)',
    )
    .option('--passphrase-file <file>', 'passphrase of the recovery bundle (default: one is made)')
    .option(
      '--recover <file>',
      'create the cluster again with the root CA of this recovery bundle, if every authority is lost',
    )
    .action(async (options: InitOptions) => {
      const { initNode } = await import('../setup/init.ts');
      await initNode(io, options);
    });
}
