import { type Config, configKeys, loadConfig, type Paths, readText, tomlOf } from './config.ts';
import { readDirectory } from './directory.ts';
import type { Role } from '../membership/types.ts';

/** One key as the daemon would read it now. */
export interface ShownKey {
  /** Such as `edge.https_port`; a service's is `services.NAME.port`. */
  readonly key: string;
  /** null: not set. */
  readonly value: unknown;
  readonly from: 'file' | 'default';
  /** Whether a part of the value may be a secret, and is not shown. */
  readonly hidden: boolean;
}

export interface ShownConfig {
  readonly role: Role;
  readonly file: string;
  readonly keys: readonly ShownKey[];
  readonly passedOver: Config['passedOver'];
}

/**
 * Keys that would hold a secret themselves. There is none yet (each names a file), but a later one is hidden from its
 * first day.
 */
const SECRET = /(^|_)(password|passphrase|secret|token|key|credential)s?$/;
const HIDDEN = '(hidden)';
/** The operator's own programs: their arguments can be secrets. */
const COMMANDS: ReadonlySet<string> = new Set(['notify.command', 'floating.command']);

/**
 * Every key with its value and where that comes from. Secrets are never shown.
 *
 * @throws OperatorError as {@link loadConfig}
 */
export async function shownConfig(role: Role, paths: Paths): Promise<ShownConfig> {
  const config = await loadConfig(role, paths, 'lenient');
  const raw = tomlOf((await readText(paths.config)) ?? '', paths.config);
  const values: Readonly<Record<string, unknown>> = {
    ...config,
    network: {
      ...config.network,
      libp2p_port: config.libp2pPort,
      admission_port: config.admissionPort,
    },
    metrics: { ...config.metrics, port: config.metricsPort },
  };
  const keys = configKeys().map((path) => shownKey(path, valueAt(values, path), valueAt(raw, path)));
  const services = role === 'app' ? await shownServices(config, paths.services) : [];
  return { role, file: paths.config, keys: [...keys, ...services], passedOver: config.passedOver };
}

async function shownServices({ services }: Config, directory: string): Promise<ShownKey[]> {
  const written = new Map<unknown, unknown>();
  for (const entry of await readDirectory(directory)) {
    if (!('text' in entry)) continue;
    try {
      const raw = tomlOf(entry.text, entry.file);
      written.set(valueAt(raw, ['name']), raw);
    } catch {
      // A file that cannot be read is no service of this configuration; it is in passedOver.
    }
  }
  return services.flatMap((service) =>
    Object.entries(service).map(([key, value]) =>
      shownKey(['services', service.name, key], value, valueAt(written.get(service.name), [key])),
    ),
  );
}

function shownKey(path: readonly string[], value: unknown, written: unknown): ShownKey {
  const key = path.join('.');
  const shown = withoutSecrets(key, value);
  return {
    key,
    value: shown ?? null,
    from: written === undefined ? 'default' : 'file',
    hidden: shown !== value,
  };
}

/**
 * The path of a webhook is its password (Slack, Discord); arguments of a command and headers of a check can be secrets.
 */
function withoutSecrets(key: string, value: unknown): unknown {
  if (value === undefined) return value;
  if (key === 'notify.webhook_url') {
    const url = typeof value === 'string' ? URL.parse(value) : null;
    return url === null ? HIDDEN : `${url.origin}/${HIDDEN}`;
  }
  if (key.endsWith('.health_headers')) {
    const names = Object.keys(value as object);
    return names.length === 0 ? value : Object.fromEntries(names.map((name) => [name, HIDDEN]));
  }
  if (COMMANDS.has(key) && Array.isArray(value) && value.length > 1) return [value[0], HIDDEN];
  return SECRET.test(key) ? HIDDEN : value;
}

function valueAt(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (at, key) => (typeof at === 'object' && at !== null ? (at as Record<string, unknown>)[key] : undefined),
    value,
  );
}
