/** Stores the page itself on the device, so that it opens without a connection. `/api` is never stored. */
interface Worker {
  addEventListener(name: string, listener: (event: WorkerEvent) => void): void;
  skipWaiting(): Promise<void>;
}
interface WorkerEvent {
  readonly request: Request;
  waitUntil(work: Promise<unknown>): void;
  respondWith(answer: Promise<Response>): void;
}
const worker = globalThis as unknown as Worker;
const CACHE = 'page';
const FILES = ['/', '/app.js', '/app.css', '/icon.svg'];

worker.addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)));
  void worker.skipWaiting();
});
worker.addEventListener('fetch', (event) => {
  const { request } = event;
  const { pathname, origin } = new URL(request.url);
  if (request.method !== 'GET' || origin !== location.origin || pathname.startsWith('/api/')) return;
  const key = request.mode === 'navigate' ? '/' : request;
  // The network first, so that a new version shows at once; without a network, the stored copy.
  event.respondWith(
    fetch(request)
      .then(async (answer) => {
        if (answer.ok) await (await caches.open(CACHE)).put(key, answer.clone());
        return answer;
      })
      .catch(async () => (await caches.match(key)) ?? Response.error()),
  );
});
