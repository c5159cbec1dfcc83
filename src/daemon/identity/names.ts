import { isIPv4 } from 'node:net';
import type { Role } from '../membership/types.ts';
import { IdentityError, shown } from './errors.ts';

/**
 * Names are written into certificates, haproxy.cfg, bird.conf and Erlang, so they have only characters that are
 * harmless in all of them: lower-case letters, digits and hyphens (RFC 1123 section 2.1, one label).
 */
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** RFC 5280 allows 64 characters in a common name; the authorities' names add 19 to the cluster's. */
const CLUSTER_CHARACTERS = 32;

export function parseHost(text: string): string {
  if (LABEL.test(text)) return text;
  throw new IdentityError({
    code: 'host-invalid',
    message: `The host name ${shown(text)} is not one label of lower-case letters, digits and hyphens (at most 63).`,
    next: 'Give a short name such as db1 with --host.',
  });
}

export function parseCluster(text: string): string {
  if (LABEL.test(text) && text.length <= CLUSTER_CHARACTERS) return text;
  throw new IdentityError({
    code: 'cluster-invalid',
    message:
      `The cluster name ${shown(text)} is not one label of lower-case letters, digits and hyphens (at most ` +
      `${CLUSTER_CHARACTERS}).`,
    next: 'Give a short name such as prod with --cluster.',
  });
}

export function parseRole(text: string): Role {
  if (text === 'app' || text === 'db') return text;
  throw new IdentityError({
    code: 'role-invalid',
    message: `There is no role ${shown(text)}.`,
    next: 'Give --role app or --role db.',
  });
}

/** An IPv4 address in its usual spelling that one host can hold: not unspecified, multicast or reserved. */
export function parseAddress(text: string): string {
  const first = Number(text.split('.')[0]);
  if (text.length <= 15 && isIPv4(text) && !/(^|\.)0\d/.test(text) && first > 0 && first < 224) return text;
  throw new IdentityError({
    code: 'address-invalid',
    message: `${shown(text)} is not an IPv4 address of a host.`,
    next: 'Give the address of the private device, such as 10.0.0.5, with --private-address.',
  });
}

export function parsePort(port: number): number {
  if (Number.isInteger(port) && port >= 1 && port <= 65_535) return port;
  throw new IdentityError({
    code: 'port-invalid',
    message: `${port} is not a TCP port.`,
    next: 'Give a port from 1 to 65535.',
  });
}

/** Whether an IPv4 address is in a network such as `10.0.0.0/16`. A malformed network contains nothing. */
export function inNetwork(address: string, cidr: string): boolean {
  const [base = '', bitsText = ''] = cidr.split('/');
  const bits = /^\d{1,2}$/.test(bitsText) ? Number(bitsText) : 33;
  if (!isIPv4(base) || !isIPv4(address) || bits > 32) return false;
  const mask = bits === 0 ? 0 : (0xffff_ffff << (32 - bits)) >>> 0;
  return (addressNumber(base) & mask) >>> 0 === (addressNumber(address) & mask) >>> 0;
}

function addressNumber(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** Each role instance is a member, so that a host can have both roles. */
export function memberName(host: string, role: Role): string {
  return `${host}/${role}`;
}

/** The private DNS name in a node's certificate. Erlang compares names with DNS entries only. */
export function privateName(host: string, role: Role, cluster: string): string {
  return `${host}.${role}.${cluster}.internal`;
}
