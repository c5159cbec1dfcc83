/**
 * A whole machine whose kernel enforces SELinux: User-Mode Linux, which is a process here, without rights of its own
 * and without a network. It boots an image of files, systemd in it loads the policy, and an agent in it runs commands.
 */
import type { ChildProcess } from 'node:child_process';
import { access, mkdir, open, readFile, rm, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Duplex } from 'node:stream';
import { isOver } from '../support/patience.ts';
import { spawnWithUs } from '../support/with-us.ts';
import { must, put } from './tree.ts';

export const POLICY = 'etc/selinux/targeted';
/** Directory of `bin/linux.uml` and `lib/uml/modules`: what scripts/user-mode-linux.sh found, or another. */
export const UML =
  process.env['LAB_UML'] ?? join(import.meta.dirname, '../../node_modules/.cache/user-mode-linux/usr');

/** Both daemons, the app tier and CouchDB's stand-in are Node.js; and a policy is compiled beside them. */
const MEMORY_MEGABYTES = 1536;
const IMAGE_MEGABYTES = 900;
/** A boot takes 15 s on a free machine, and many times that beside others. */
const BOOT_MS = 300_000;
const COMMAND_MS = 120_000;
const LOOK_EVERY_MS = 20;
/** About a second. */
const TURNS_TO_CONSOLE = 50;
/** Characters: the last lines. */
const CONSOLE_SHOWN = 4000;

/**
 * What runs the commands, as a login's shell would: a line in, the command in base64; a line out, its number, its exit
 * code and its output in base64.
 */
const AGENT = `#!/bin/bash
exec <>/dev/ttyS0 >&0
# The command compiles half a second at each start.
export NODE_COMPILE_CACHE=/run/lab-compiled
stty raw -echo
echo "@ready"
while read -r number command; do
  output=$(bash -c "$(base64 -d <<<"$command")" </dev/null 2>&1 | base64 -w 0; exit "\${PIPESTATUS[0]}")
  echo "@$number $? $output"
done
`;
const AGENT_UNIT = `[Unit]
After=multi-user.target
[Service]
Type=idle
ExecStart=/bin/bash /usr/libexec/lab-agent
SELinuxContext=-unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023
KillMode=process
StandardOutput=null
[Install]
WantedBy=multi-user.target
`;
/** What only slows a boot down, or needs devices that are not there. */
const MASKED = [
  'getty.target',
  'systemd-logind.service',
  'systemd-timesyncd.service',
  'systemd-update-utmp.service',
  'systemd-update-utmp-runlevel.service',
  'systemd-random-seed.service',
  'systemd-network-generator.service',
  'systemd-hwdb-update.service',
  'systemd-journal-catalog-update.service',
  'systemd-machine-id-commit.service',
  'systemd-pcrphase.service',
  'systemd-pcrphase-sysinit.service',
  'ldconfig.service',
  'dev-hugepages.mount',
  'dev-mqueue.mount',
  'sys-kernel-config.mount',
  'sys-kernel-debug.mount',
  'sys-kernel-tracing.mount',
  'sys-fs-fuse-connections.mount',
  'proc-sys-fs-binfmt_misc.automount',
];

/** What systemd-tmpfiles does at each boot for a whole distribution: none of it is about the product. */
const TMPFILES_LEFT_OUT = [
  'debian.conf',
  'etc.conf',
  'home.conf',
  'provision.conf',
  'legacy.conf',
  'x11.conf',
];

export async function addAgent(root: string): Promise<void> {
  await put(root, '/usr/libexec/lab-agent', AGENT);
  await put(root, '/usr/lib/systemd/system/lab-agent.service', AGENT_UNIT);
  const units = join(root, 'etc/systemd/system');
  await mkdir(join(units, 'multi-user.target.wants'), { recursive: true });
  const wants = join(units, 'multi-user.target.wants/lab-agent.service');
  await must('ln', ['-sf', '/usr/lib/systemd/system/lab-agent.service', wants]);
  for (const name of TMPFILES_LEFT_OUT) await rm(join(root, 'usr/lib/tmpfiles.d', name), { force: true });
  // A process each, at every boot and reload of systemd, for what is not on this machine.
  await rm(join(root, 'usr/lib/systemd/system-generators'), { recursive: true, force: true });
  for (const unit of MASKED) await must('ln', ['-sf', '/dev/null', join(units, unit)]);
}

/** Labels the tree by the policy that is in it, and makes an image of it. */
export async function makeImage(root: string, image: string): Promise<void> {
  await must('setfiles', ['-F', '-r', root, join(root, POLICY, 'contexts/files/file_contexts'), root]);
  await must('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', root, image, `${IMAGE_MEGABYTES}M`]);
}

/** Where the machine's memory is a file: not on a disk, which would be written all the time. */
async function memoryDirectory(image: string): Promise<string> {
  const shared = '/dev/shm';
  const { bavail, bsize } = await statfs(shared);
  return bavail * bsize > 2 * MEMORY_MEGABYTES * 1024 ** 2 ? shared : dirname(image);
}

export type Answer = { readonly code: number; readonly output: string };

export class Machine {
  readonly #process: ChildProcess;
  readonly #channel: Duplex;
  /** File that holds what the kernel printed. */
  readonly #console: string;
  #text = '';
  #number = 0;
  #ended = false;

  private constructor(child: ChildProcess, channel: Duplex, file: string) {
    this.#process = child;
    this.#channel = channel;
    this.#console = file;
  }

  /** Boots an image, which the machine writes to, and waits for its agent. */
  static async boot(image: string): Promise<Machine> {
    await access(join(UML, 'bin/linux.uml')).catch(() => {
      throw new Error(
        `no User-Mode Linux in ${UML}: \`sh scripts/with-tools.sh selinux true\` gets it on Debian`,
      );
    });
    const file = `${image}.console`;
    const log = await open(file, 'w');
    // In a namespace of its own: all of its processes end when the test does.
    const contained = ['--net', '--pid', '--fork', '--kill-child', '--mount-proc'];
    const kernel = [
      join(UML, 'bin/linux.uml'),
      `mem=${MEMORY_MEGABYTES}M`,
      `ubd0=${image}`,
      `uml_dir=${image}.uml`,
      // The image is thrown away: nothing in it has to reach the disk.
      ...[
        'root=/dev/ubda',
        'rw',
        'rootflags=nobarrier',
        'con=null',
        'con0=null,fd:1',
        'ssl=null',
        'ssl0=fd:3,fd:3',
      ],
      ...['lsm=selinux', 'selinux=1', 'enforcing=1', 'audit_backlog_limit=8192', 'log_buf_len=4M'],
      // No record of a denial may be left out for there are many.
      'sysctl.kernel.printk_ratelimit=0',
      // Newer kernels need no ptrace then; older ones do not know the word.
      'seccomp=auto',
      // A program that maps a ring into its memory brings a newer User-Mode Linux down.
      'sysctl.kernel.io_uring_disabled=2',
      ...['init=/usr/lib/systemd/systemd', 'systemd.unit=multi-user.target', 'systemd.show_status=0'],
    ];
    await mkdir(`${image}.uml`, { recursive: true });
    const child = spawnWithUs('unshare', [...contained, ...kernel], {
      stdio: ['ignore', log.fd, log.fd, 'pipe'],
      env: { ...process.env, TMPDIR: await memoryDirectory(image) },
    });
    await log.close();
    const channel = child.stdio[3] as Duplex;
    const machine = new Machine(child, channel, file);
    channel.on('data', (chunk: Buffer) => {
      machine.#text += chunk.toString('latin1');
    });
    channel.on('error', () => {});
    child.once('exit', () => {
      machine.#ended = true;
    });
    try {
      await machine.#line('@ready', BOOT_MS);
    } catch (error) {
      await machine.close();
      throw error;
    }
    return machine;
  }

  /** Runs a bash script as root; one at a time. `output` is what it printed to both. */
  async run(script: string, timeoutMs = COMMAND_MS): Promise<Answer> {
    const number = ++this.#number;
    this.#channel.write(`${number} ${Buffer.from(script).toString('base64')}\n`);
    const line = await this.#line(`@${number} `, timeoutMs);
    const [, code, output = ''] = line.split(' ');
    return { code: Number(code), output: Buffer.from(output, 'base64').toString() };
  }

  async must(script: string, timeoutMs = COMMAND_MS): Promise<string> {
    const { code, output } = await this.run(script, timeoutMs);
    if (code !== 0) throw new Error(`${script}: exit code ${code}\n${output}`);
    return output;
  }

  async close(): Promise<void> {
    if (this.#ended) return;
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.kill('SIGKILL');
    await ended;
  }

  async #line(start: string, timeoutMs: number): Promise<string> {
    const since = performance.now();
    for (let turn = 1; ; turn++) {
      const lines = this.#text.split('\n');
      const at = lines.findIndex((line) => line.startsWith(start));
      if (at >= 0 && at < lines.length - 1) {
        this.#text = lines.slice(at + 1).join('\n');
        return (lines[at] ?? '').trim();
      }
      // A kernel that panics does not end: it is process 1 of its namespace, which ignores its own signals.
      const panicked = turn % TURNS_TO_CONSOLE === 0 && (await this.#printed()).includes('Kernel panic');
      if (this.#ended || panicked || isOver(since, timeoutMs)) {
        const last = (await this.#printed()).slice(-CONSOLE_SHOWN);
        throw new Error(`the machine did not say ${start}; it said ${this.#text}; its kernel:\n${last}`);
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  }

  #printed(): Promise<string> {
    return readFile(this.#console, 'utf8');
  }
}
