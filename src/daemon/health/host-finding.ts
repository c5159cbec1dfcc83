/** A fault of this machine that an operator must know of. It decides nothing about traffic. */
export interface HostFinding {
  readonly code: 'disk-full' | 'disk-filling' | 'link-down' | 'memory-pressure' | 'unit-restarts';
  readonly message: string;
  readonly next: string;
  /** How its end is reported. */
  readonly over: string;
}
