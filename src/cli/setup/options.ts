import { type Command, InvalidArgumentError, Option } from 'commander';
import { canonicalAddress, isRoutable } from '../../host/floating-address.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { wholeNumber } from '../commands/events.ts';
import { BGP_PROVIDERS, type BgpProvider } from './bgp-presets.ts';
import type { CommonOptions } from '../verb.ts';

/** Options that `init` and `join` share. Each can be detected or has a default. */
export interface SetupOptions extends CommonOptions {
  readonly host?: string;
  readonly privateAddress?: string;
  readonly privateDevice?: string;
  readonly privateNetwork?: string;
  readonly publicDevice?: string;
  readonly certificate?: string;
  readonly domain?: string;
  readonly agreeTerms?: boolean;
  readonly dnsTokenFile?: string;
  readonly dnsZoneId?: string;
  readonly floatingIp?: readonly string[];
  readonly floatingMode?: 'off' | 'bgp' | 'ranked' | 'layer2' | 'api';
  readonly floatingProvider?: 'digitalocean' | 'hetzner' | 'upcloud';
  readonly floatingTokenFile?: string;
  readonly bgpNeighbor?: readonly string[];
  readonly bgpAs?: number;
  readonly bgpLocalAs?: number;
  readonly bgpPasswordFile?: string;
  readonly bgpMultihop?: number;
  readonly bgpProvider?: BgpProvider;
  readonly bgpHoldTime?: number;
  readonly bgpBfd?: boolean;
  readonly couchdbN?: number;
  readonly couchdbQ?: number;
  readonly reset?: boolean;
  readonly start?: boolean;
  readonly dryRun?: boolean;
}

export interface InitOptions extends SetupOptions {
  readonly role: Role;
  readonly cluster?: string;
  readonly recoveryFile?: string;
  readonly passphraseFile?: string;
  readonly recover?: string;
}

export interface JoinOptions extends SetupOptions {
  readonly tokenFile?: string;
  /** Milliseconds; true: as long as the token lives. */
  readonly wait?: number | true;
}

export interface AuthorityOptions extends CommonOptions {
  readonly role?: Role;
  readonly passphraseFile?: string;
}

export interface RotateOptions extends AuthorityOptions {
  readonly end?: boolean;
  readonly again?: boolean;
  readonly force?: boolean;
  readonly recoveryFile?: string;
}

export function addSetupOptions(command: Command): Command {
  return addBgpOptions(addHostOptions(command))
    .option('--couchdb-n <copies>', 'role db: copies of each document (default: 3)', wholeNumber)
    .option('--couchdb-q <ranges>', 'role db: ranges of each new database (default: 2)', wholeNumber)
    .option('--start', 'start the daemon at the end, now and at each boot')
    .option('--dry-run', 'show what was detected and what would be done, and write nothing')
    .option('--reset', 'move an existing identity aside, whole, and start over');
}

function addHostOptions(command: Command): Command {
  return command
    .option('--host <name>', 'name of this node (default: the host name, lower-cased)')
    .option('--private-address <address>', 'address for the cluster’s own traffic, if there are several')
    .option('--private-device <device>', 'device of that address')
    .option(
      '--private-network <network>',
      'network of all nodes’ private addresses, if no route names it (10.0.0.0/16)',
    )
    .option('--public-device <device>', 'device that faces the internet, if there are several')
    .option('--certificate <file>', 'role app: PEM file with certificate, chain and key for the edge')
    .option(
      '--domain <name>',
      'role app: name of the site, e.g. shop.example; Let’s Encrypt signs its certificate',
      domainName,
    )
    .option('--agree-terms', 'with --domain: you agree to the terms of Let’s Encrypt')
    .option(
      '--dns-token-file <file>',
      'with --domain: token of Cloudflare that may edit its zone; the records then follow the cluster',
    )
    .option('--dns-zone-id <id>', 'with --dns-token-file: ID of the zone, from its page at Cloudflare')
    .option(
      '--floating-ip <addresses>',
      'role app: floating IPs, IPv4 and IPv6, separated by commas',
      addressList,
    )
    .addOption(
      new Option(
        '--floating-mode <mode>',
        'role app: how they are announced; without BGP: layer2, or api (default: bgp with ' +
          '--floating-ip, else off)',
      ).choices(['off', 'bgp', 'ranked', 'layer2', 'api']),
    )
    .addOption(
      new Option(
        '--floating-provider <provider>',
        'with --floating-mode api: whose API assigns them',
      ).choices(['digitalocean', 'hetzner', 'upcloud']),
    )
    .option(
      '--floating-token-file <file>',
      'with --floating-mode api: token of the provider that may assign them',
    );
}

function addBgpOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--bgp-provider <provider>',
        'role app: neighbour, AS number and hops as this provider documents them',
      ).choices(BGP_PROVIDERS),
    )
    .option(
      '--bgp-neighbor <addresses>',
      'role app: the provider’s BGP neighbours, separated by commas, for the first set-up of BIRD; an IPv6 one ' +
        'gets the IPv6 floating IPs',
      neighborList,
    )
    .option('--bgp-as <number>', 'role app: the provider’s AS number', wholeNumber)
    .option('--bgp-local-as <number>', 'role app: your AS number', wholeNumber)
    .option('--bgp-password-file <file>', 'role app: file that holds the BGP password')
    .option(
      '--bgp-multihop <hops>',
      'role app: hops to the neighbour, if it is not on the same link',
      wholeNumber,
    )
    .option(
      '--bgp-hold-time <seconds>',
      'role app: after so much silence the provider removes the route to this node (default: 9)',
      wholeNumber,
    )
    .option(
      '--bgp-bfd',
      'role app: with BFD, which notices a dead machine in 0.3 s, if the provider offers it',
    );
}

function domainName(text: string): string {
  const name = text.toLowerCase().replace(/\.$/, '');
  if (/^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])$/.test(name)) return name;
  throw new InvalidArgumentError(`${JSON.stringify(text)} is not a domain name. Example: shop.example.`);
}

function addressList(text: string): string[] {
  const addresses = text.split(',').map((each) => each.trim());
  const wrong = addresses.find((each) => !isRoutable(each));
  if (wrong !== undefined)
    throw new InvalidArgumentError(
      `${JSON.stringify(wrong)} is not an IPv4 or IPv6 address that a provider can route.`,
    );
  return addresses.map(canonicalAddress);
}

const neighborList = (text: string): string[] => text.split(',').map((each) => each.trim());
