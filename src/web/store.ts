/** The data of the page on this device: the last notes, and those that are not sent yet. A sign-out deletes them. */
const NAME = 'notes';

function open(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore('kept');
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error('no storage'));
  });
}

async function withStore<T>(
  mode: IDBTransactionMode,
  use: (store: IDBObjectStore) => IDBRequest<T>,
): Promise<T | undefined> {
  // A browser in private mode may refuse: then nothing is stored, and the page works only online.
  const database = await open().catch(() => undefined);
  if (database === undefined) return undefined;
  return new Promise((resolve) => {
    const request = use(database.transaction('kept', mode).objectStore('kept'));
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(undefined);
  }).finally(() => database.close()) as Promise<T | undefined>;
}

export const keep = (key: string, value: unknown): Promise<unknown> =>
  withStore('readwrite', (store) => store.put(value, key));
export const kept = <T>(key: string): Promise<T | undefined> =>
  withStore<T>('readonly', (store) => store.get(key) as IDBRequest<T>);
export const wipe = (): Promise<unknown> => withStore('readwrite', (store) => store.clear());
