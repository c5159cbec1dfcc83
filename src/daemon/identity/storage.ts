import { fileError } from '../../host/files.ts';
import { hasNextStep } from '../errors.ts';

/** What to do about a file that could not be written, by the reason: a full disk is one of many. */
export function storageNext(error: unknown, place = '/var/lib/bornemisza'): string {
  return hasNextStep(error) ? error.next.replace(/\.$/, '') : fileError(error, place).next;
}
