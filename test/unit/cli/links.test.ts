import t from 'tap';
import {
  choosePrivate,
  choosePrivateNetwork,
  choosePublic,
  nameNode,
} from '../../../src/cli/setup/discover.ts';
import { networkFrom } from '../../../src/cli/setup/links.ts';

/** A device as `ip -d -j addr show up` prints it, without what nobody reads. */
interface Device {
  readonly kind?: string;
  readonly master?: string;
  readonly addresses?: readonly string[];
  readonly secondary?: readonly string[];
  readonly label?: string;
}

function links(devices: Readonly<Record<string, Device>>): string {
  const lo = { ifname: 'lo', addr_info: [{ family: 'inet', local: '127.0.0.1', prefixlen: 8, label: 'lo' }] };
  const inet = (ifname: string, text: string, more: object) => {
    const [local = '', bits = ''] = text.split('/');
    const family = local.includes(':') ? 'inet6' : 'inet';
    return { family, local, prefixlen: Number(bits), scope: 'global', label: ifname, ...more };
  };
  const others = Object.entries(devices).map(([ifname, each]) => ({
    ifname,
    ...(each.master !== undefined && { master: each.master }),
    ...(each.kind !== undefined && { linkinfo: { info_kind: each.kind } }),
    addr_info: [
      ...(each.addresses ?? []).map((text) => inet(ifname, text, each.label ? { label: each.label } : {})),
      ...(each.secondary ?? []).map((text) => inet(ifname, text, { secondary: true })),
    ],
  }));
  return JSON.stringify([lo, ...others]);
}

/** Routes as `ip route` prints them for people: `10.0.0.0/16 via 10.0.0.1 dev eth1`. */
function routes(...lines: readonly string[]): string {
  return JSON.stringify(
    lines.map((line) => {
      const [first = '', ...rest] = line.split(' ');
      const thrownAway = first === 'blackhole' || first === 'unreachable';
      const words = thrownAway ? rest : [first, ...rest];
      const after = (word: string) => words[words.indexOf(word) + 1];
      return {
        dst: words[0],
        ...(thrownAway ? { type: first } : { dev: after('dev') }),
        ...(words.includes('via') && { gateway: after('via') }),
        ...(words.includes('metric') && { metric: Number(after('metric')) }),
      };
    }),
  );
}

interface Case {
  readonly devices: Readonly<Record<string, Device>>;
  readonly routes: readonly string[];
  readonly routes6?: readonly string[];
  /** `ADDRESS DEVICE NETWORK PUBLIC`, or the code of the question that only the operator can answer. */
  readonly found: string;
}

const hetznerPublic = ['default via 172.31.1.1 dev eth0', '172.31.1.1 dev eth0'];
const digitalOcean = { addresses: ['203.0.113.20/20', '10.10.0.5/16'] };

const machines: Readonly<Record<string, Case>> = {
  'Hetzner Cloud: a /32, the network by way of a gateway': {
    devices: { eth0: { addresses: ['203.0.113.7/32'] }, enp7s0: { addresses: ['10.0.0.2/32'] } },
    routes: [...hetznerPublic, '10.0.0.0/16 via 10.0.0.1 dev enp7s0', '10.0.0.1 dev enp7s0'],
    found: '10.0.0.2 enp7s0 10.0.0.0/16 eth0',
  },
  'Hetzner Cloud with IPv6 alone outside': {
    devices: { eth0: { addresses: ['2001:db8::1/64'] }, enp7s0: { addresses: ['10.0.0.2/32'] } },
    routes: ['10.0.0.0/16 via 10.0.0.1 dev enp7s0', '10.0.0.1 dev enp7s0'],
    routes6: ['default via fe80::1 dev eth0'],
    found: '10.0.0.2 enp7s0 10.0.0.0/16 eth0',
  },
  'a /32 with its network on the wire (case of the lab)': {
    devices: { eth0: { addresses: ['203.0.113.7/24'] }, eth1: { addresses: ['10.77.0.11/32'] } },
    routes: ['default via 203.0.113.1 dev eth0', '10.77.0.0/24 dev eth1'],
    found: '10.77.0.11 eth1 10.77.0.0/24 eth0',
  },
  'GCE: one device, a /32, nothing but a default route': {
    devices: { ens4: { addresses: ['10.128.0.2/32'] } },
    routes: ['default via 10.128.0.1 dev ens4', '10.128.0.1 dev ens4'],
    found: 'private-network-unknown',
  },
  'GCE with a second device': {
    devices: { ens4: { addresses: ['203.0.113.7/32'] }, ens5: { addresses: ['10.1.0.5/32'] } },
    routes: ['default via 203.0.113.1 dev ens4', '10.1.0.0/24 via 10.1.0.1 dev ens5', '10.1.0.1 dev ens5'],
    found: '10.1.0.5 ens5 10.1.0.0/24 ens4',
  },
  'the routes of another device, of a VPN and of a black hole say nothing of this one': {
    devices: {
      eth0: { addresses: ['203.0.113.7/24'] },
      eth1: { addresses: ['10.0.0.2/32'] },
      tun0: { kind: 'tun', addresses: ['100.64.0.9/32'] },
    },
    routes: [
      'default via 203.0.113.1 dev eth0',
      '10.0.0.0/8 dev tun0',
      '0.0.0.0/1 dev eth1',
      'blackhole 10.0.0.0/8',
    ],
    found: 'private-network-unknown',
  },
  'IBM Cloud: a small prefix, and 10.0.0.0/8 behind the gateway': {
    devices: { eth0: { addresses: ['10.66.4.7/26'] }, eth1: { addresses: ['203.0.113.7/28'] } },
    routes: [
      'default via 203.0.113.1 dev eth1',
      '10.0.0.0/8 via 10.66.4.1 dev eth0',
      '10.66.4.0/26 dev eth0',
    ],
    found: '10.66.4.7 eth0 10.0.0.0/8 eth1',
  },
  'DigitalOcean: the anchor on the public device is not the private address': {
    devices: { eth0: digitalOcean, eth1: { addresses: ['10.116.0.2/20'] } },
    routes: ['default via 203.0.113.1 dev eth0', '10.10.0.0/16 dev eth0', '10.116.0.0/20 dev eth1'],
    found: '10.116.0.2 eth1 10.116.0.0/20 eth0',
  },
  'DigitalOcean while the VPC’s device is down: the anchor is not taken for want of another': {
    devices: { eth0: digitalOcean },
    routes: ['default via 203.0.113.1 dev eth0', '10.10.0.0/16 dev eth0'],
    found: 'private-address-unsure',
  },
  'Linode of old: the private address beside the public one': {
    devices: { eth0: { addresses: ['203.0.113.7/24', '192.168.140.9/17'] } },
    routes: ['default via 203.0.113.1 dev eth0', '192.168.128.0/17 dev eth0'],
    found: 'private-address-unsure',
  },
  'labels of ifupdown': {
    devices: {
      eth0: { addresses: ['203.0.113.20/20'], secondary: ['203.0.113.21/20'] },
      eth1: { addresses: ['10.116.0.2/20'], label: 'eth1:0' },
    },
    routes: ['default via 203.0.113.1 dev eth0', '10.116.0.0/20 dev eth1'],
    found: '10.116.0.2 eth1 10.116.0.0/20 eth0',
  },
  Vultr: {
    devices: { enp1s0: { addresses: ['203.0.113.7/23'] }, enp6s0: { addresses: ['10.1.96.3/20'] } },
    routes: [
      'default via 203.0.113.1 dev enp1s0',
      '10.1.96.0/20 dev enp6s0',
      '169.254.169.254 via 203.0.113.1 dev enp1s0',
    ],
    found: '10.1.96.3 enp6s0 10.1.96.0/20 enp1s0',
  },
  'OVH: a vRack in a VLAN, a public /32': {
    devices: {
      eno1: { addresses: ['203.0.113.7/32'] },
      eno2: {},
      'eno2.1700': { kind: 'vlan', addresses: ['192.168.1.11/24'] },
    },
    routes: ['default via 203.0.113.254 dev eno1', '192.168.1.0/24 dev eno2.1700'],
    found: '192.168.1.11 eno2.1700 192.168.1.0/24 eno1',
  },
  'Scaleway: the private network with a /22, the public address routed': {
    devices: { ens2: { addresses: ['203.0.113.7/32'] }, ens5: { addresses: ['172.16.4.2/22'] } },
    routes: [
      'default via 62.210.0.1 dev ens2',
      '172.16.4.0/22 dev ens5',
      '172.16.0.0/12 via 172.16.4.1 dev ens5',
    ],
    found: '172.16.4.2 ens5 172.16.0.0/12 ens2',
  },
  'AWS: one device behind NAT, a second address on it, IPv6 as well': {
    devices: { ens5: { addresses: ['10.0.1.5/24', '2001:db8::5/128'], secondary: ['10.0.1.6/24'] } },
    routes: ['default via 10.0.1.1 dev ens5', '10.0.1.0/24 dev ens5', '10.0.0.2 via 10.0.1.1 dev ens5'],
    routes6: ['default via fe80::1 dev ens5'],
    found: '10.0.1.5 ens5 10.0.1.0/24 none',
  },
  'an address that keepalived moves is not the machine’s own': {
    devices: {
      eth0: { addresses: ['203.0.113.7/24'] },
      eth1: { addresses: ['10.0.0.11/24', '10.0.0.100/32'] },
    },
    routes: ['default via 203.0.113.1 dev eth0', '10.0.0.0/24 dev eth1'],
    found: '10.0.0.11 eth1 10.0.0.0/24 eth0',
  },
  'containers, hypervisors, Tailscale and Kubernetes beside the private device': {
    devices: {
      eth0: { addresses: ['203.0.113.7/24'] },
      eth1: { addresses: ['10.0.0.11/24'] },
      docker0: { kind: 'bridge', addresses: ['172.17.0.1/16'] },
      'br-0f1e2d3c4b5a': { kind: 'bridge', addresses: ['172.18.0.1/16'] },
      veth12: { kind: 'veth', master: 'br-0f1e2d3c4b5a' },
      cni0: { kind: 'bridge', addresses: ['10.244.1.1/24'] },
      'flannel.1': { kind: 'vxlan', addresses: ['10.244.1.0/32'] },
      'kube-ipvs0': { kind: 'dummy', addresses: ['10.96.0.1/32'] },
      virbr0: { kind: 'bridge', addresses: ['192.168.122.1/24'] },
      tailscale0: { kind: 'tun', addresses: ['100.101.102.103/32'] },
      tunl0: { kind: 'ipip', addresses: ['10.244.1.64/32'] },
    },
    routes: ['default via 203.0.113.1 dev eth0', '10.0.0.0/24 dev eth1', '10.244.0.0/16 dev flannel.1'],
    found: '10.0.0.11 eth1 10.0.0.0/24 eth0',
  },
  'a bridge over the private device (Proxmox) is the private device': {
    devices: {
      vmbr0: { kind: 'bridge', addresses: ['203.0.113.7/24'] },
      eno1: { master: 'vmbr0' },
      vmbr1: { kind: 'bridge', addresses: ['10.0.0.11/24'] },
      bond0: { kind: 'bond', master: 'vmbr1' },
      tap101i0: { kind: 'tun', master: 'vmbr1' },
    },
    routes: ['default via 203.0.113.1 dev vmbr0', '10.0.0.0/24 dev vmbr1'],
    found: '10.0.0.11 vmbr1 10.0.0.0/24 vmbr0',
  },
  'a network that the founder made by WireGuard': {
    devices: {
      eth0: { addresses: ['203.0.113.7/24'] },
      wg0: { kind: 'wireguard', addresses: ['10.9.0.1/24'] },
    },
    routes: ['default via 203.0.113.1 dev eth0', '10.9.0.0/24 dev wg0'],
    found: '10.9.0.1 wg0 10.9.0.0/24 eth0',
  },
  'WireGuard beside a private device: only the founder knows': {
    devices: {
      eth0: { addresses: ['203.0.113.7/24'] },
      eth1: { addresses: ['10.0.0.11/24'] },
      wg0: { kind: 'wireguard', addresses: ['10.9.0.1/24'] },
    },
    routes: ['default via 203.0.113.1 dev eth0'],
    found: 'private-address-ambiguous',
  },
  'two private devices: only the founder knows': {
    devices: {
      eth0: { addresses: ['203.0.113.7/24'] },
      enp7s0: { addresses: ['10.0.0.2/24'] },
      enp8s0: { addresses: ['10.1.0.2/24'] },
    },
    routes: ['default via 203.0.113.1 dev eth0'],
    found: 'private-address-ambiguous',
  },
  'no private device': {
    devices: {
      eth0: { addresses: ['203.0.113.7/24'] },
      docker0: { kind: 'bridge', addresses: ['172.17.0.1/16'] },
    },
    routes: ['default via 203.0.113.1 dev eth0'],
    found: 'private-address-absent',
  },
  'names as systemd and NetworkManager make them, and two default routes': {
    devices: {
      enp65s0f0np0: { addresses: ['203.0.113.7/24'] },
      enp65s0f1np1: { addresses: ['198.51.100.7/24'] },
      'team0.42': { kind: 'vlan', addresses: ['10.0.0.11/24'] },
    },
    routes: [
      'default via 198.51.100.1 dev enp65s0f1np1 metric 101',
      'default via 203.0.113.1 dev enp65s0f0np0 metric 100',
      '10.0.0.0/24 dev team0.42',
    ],
    found: '10.0.0.11 team0.42 10.0.0.0/24 enp65s0f0np0',
  },
};

function find({ devices, routes: lines, routes6 = [] }: Case): string {
  const { addresses, defaultRoutes } = networkFrom(links(devices), routes(...lines), routes(...routes6));
  try {
    const { address, device, ...more } = choosePrivate(addresses, {});
    const network = choosePrivateNetwork({ address, device, ...more });
    const outside = choosePublic(addresses, { privateDevice: device, defaultRoutes });
    return `${address} ${device} ${network} ${outside ?? 'none'}`;
  } catch (error) {
    return (error as { code: string }).code;
  }
}

for (const [name, machine] of Object.entries(machines)) {
  t.test(name, async (t) => {
    t.equal(find(machine), machine.found);
  });
}

t.test('the network that the operator names is used, if the address is in it', async (t) => {
  const { addresses } = networkFrom(links({ ens4: { addresses: ['10.128.0.2/32'] } }), routes());
  const found = choosePrivate(addresses, {});
  t.equal(choosePrivateNetwork(found, '10.128.0.0/20'), '10.128.0.0/20');
  t.equal(choosePrivateNetwork(found, '10.128.0.2/20'), '10.128.0.0/20', 'as people write it');
  for (const wrong of [
    '10.128.0.0',
    '10.129.0.0/20',
    '10.128.0.2/32',
    '10.128.0.0/33',
    'x',
    '10.128.0.0/20/1',
  ])
    t.throws(() => choosePrivateNetwork(found, wrong), { code: 'private-network-invalid' }, wrong);
});

t.test('a domain of the provider names no cluster', async (t) => {
  for (const name of [
    'ip-10-0-0-5.ec2.internal',
    'ip-10-0-0-5.eu-west-1.compute.internal',
    'ec2-203-0-113-7.compute-1.amazonaws.com',
    'app1.europe-west1-b.c.my-project-123.internal',
    'app1.c.my-project-123.internal',
    'app1.abc123.bx.internal.cloudapp.net',
    'app1.subnet1.vcn1.oraclevcn.com',
    'static.7.113.0.203.clients.your-server.de',
    '203-0-113-7.ip.linodeusercontent.com',
    'li123-45.members.linode.com',
    'vps-1a2b3c4d.vps.ovh.net',
    'ns123.ip-203-0-113.eu',
    'app1.pub.instances.scw.cloud',
    'vultr.guest',
    'app1.vultr.guest',
    'vmi123.contaboserver.net',
    'app1.novalocal',
    'app1.lan',
    'app1.local',
    'app1.home.arpa',
    'app1.internal',
  ])
    t.throws(() => nameNode(name, {}), { code: 'cluster-unknown', next: /--cluster/ }, name);
  for (const [name, cluster] of [
    ['app1.shop.internal', 'shop'],
    ['app1.shop.example', 'shop-example'],
    ['app1.ec2shop.com', 'ec2shop-com'],
  ] as const)
    t.equal(nameNode(name, {}).cluster, cluster);
  t.equal(nameNode('ip-10-0-0-5.ec2.internal', { cluster: 'shop' }).host, 'ip-10-0-0-5');
});
