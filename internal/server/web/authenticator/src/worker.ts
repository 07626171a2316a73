// The service worker: the app opens without network, and what a push service brings
// becomes a notification. `precache` stands in front of this file as the server sends it;
// another version of the app is another worker, which waits until the person wants it.
/// <reference lib="webworker" />
declare const self: ServiceWorkerGlobalScope & { precache: { version: string; files: string[] } };
declare const clients: Clients;

const home = "/authenticator/";
const door = home + "v1/";
const kept = "latchkey-authenticator-";
const cacheName = kept + self.precache.version;

self.addEventListener("install", (e) => {
  e.waitUntil(
    (async () => {
      const cache = await caches.open(cacheName);
      await cache.addAll(self.precache.files.map((f) => new Request(f, { cache: "reload", credentials: "omit" })));
    })(),
  );
});

self.addEventListener("activate", (e) => {
  e.waitUntil(
    (async () => {
      for (const name of await caches.keys()) if (name.startsWith(kept) && name !== cacheName) await caches.delete(name);
      await clients.claim();
    })(),
  );
});

self.addEventListener("message", (e) => {
  if (e.data === "take-over") void self.skipWaiting();
});

self.addEventListener("fetch", (e) => {
  const url = new URL(e.request.url);
  if (e.request.method !== "GET" || url.origin !== self.location.origin || !url.pathname.startsWith(home) || url.pathname.startsWith(door)) return;
  if (e.request.mode === "navigate") {
    if (url.pathname === home) e.respondWith(fromCache(home, e.request));
    return;
  }
  if (url.pathname === home + "worker.js") return;
  e.respondWith(fromCache(url.pathname, e.request));
});

/** What is kept is answered from there; the rest is fetched and, if its name says what is in it, kept. */
async function fromCache(path: string, request: Request): Promise<Response> {
  const cache = await caches.open(cacheName);
  const here = await cache.match(path, { ignoreVary: true });
  if (here) return here;
  const answer = await fetch(request);
  if (answer.ok && answer.type === "basic" && /-[0-9a-f]{12}\.[a-z]+$/.test(path)) await cache.put(path, answer.clone());
  return answer;
}

interface Knock {
  device?: string;
  request?: string;
  expires?: number;
}

self.addEventListener("push", (e) => {
  let knock: Knock = {};
  try {
    knock = (e.data?.json() ?? {}) as Knock;
  } catch {
    // It still means: look.
  }
  e.waitUntil(
    (async () => {
      for (const c of await clients.matchAll({ type: "window" })) c.postMessage("look");
      const id = /^[A-Za-z0-9_-]{1,80}$/.test(knock.request ?? "") ? (knock.request as string) : "";
      await self.registration.showNotification("A sign-in waits for you", {
        body: "Open Latchkey to see what it is. If you are not signing in, say so there.",
        tag: id === "" ? "latchkey" : id,
        icon: home + "icon-192.png",
        badge: home + "icon-192.png",
        requireInteraction: true,
        data: id,
      });
    })(),
  );
});

self.addEventListener("notificationclick", (e) => {
  e.notification.close();
  const at = home + (e.notification.data ? `#/request/${String(e.notification.data)}` : "#/requests");
  e.waitUntil(
    (async () => {
      const [open] = (await clients.matchAll({ type: "window" })).filter((c) => new URL(c.url).pathname === home);
      if (!open) {
        await clients.openWindow(at);
        return;
      }
      await open.focus();
      open.postMessage({ go: at.slice(home.length) });
    })(),
  );
});
export {};
