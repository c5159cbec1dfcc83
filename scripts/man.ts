/** Writes docs/man/bornemisza.8 from the command tree. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { manualPage } from '../src/cli/manual.ts';
import { processIo } from '../src/cli/process-io.ts';
import { buildProgram } from '../src/cli/program.ts';

const directory = join(resolve(import.meta.dirname, '..'), 'docs/man');
await mkdir(directory, { recursive: true });
await writeFile(join(directory, 'bornemisza.8'), manualPage(buildProgram(processIo(async () => {}))));
