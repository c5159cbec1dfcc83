/** The lab's numbers: the same in every lab, as each lab has network namespaces of its own. */

export const privateNetwork = '10.77.0.0/24';
/** First host: .11. Sixty hosts end at .70, well inside the /24s. */
export const firstHostNumber = 11;
export const maximumHosts = 60;
export const privateAddress = (index: number): string => `10.77.0.${firstHostNumber + index}`;
export const publicAddress = (index: number): string => `198.51.100.${firstHostNumber + index}`;

/** The provider's router on the public network: every host's default gateway. */
export const gatewayAddress = '198.51.100.1';
/** Where hosts open their BGP session, two hops away as at the real provider. */
export const providerAddress = '169.254.169.254';
export const providerAs = 64515;
/** One AS for all hosts of a customer: paths of equal length from it are what ECMP needs. */
export const customerAs = 65001;
export const bgpPassword = 'lab-bgp-password';

export const clientGatewayAddress = '192.0.2.1';
/** Client sources: .10 upwards; 200 fit the /24. */
export const clientAddress = (index: number): string => `192.0.2.${10 + index}`;
export const maximumClientAddresses = 200;

/** Locally administered and fixed per host, so that a reboot does not empty the neighbours' ARP caches. */
export const hardwareAddress = (network: 'private' | 'public', index: number): string =>
  `02:00:00:${network === 'private' ? '77' : '51'}:00:${(firstHostNumber + index).toString(16).padStart(2, '0')}`;
