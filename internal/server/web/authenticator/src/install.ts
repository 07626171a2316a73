// Installing the app, and taking a new version of it.
import { busy, find, h, notice } from "./dom";
import { standalone } from "./platform";
import { words } from "./words";

interface InstallPrompt extends Event {
  prompt(): Promise<unknown>;
}

let prompt: InstallPrompt | undefined;

/** Keeps the browser's offer until the person asks for it. */
export function startInstall(): void {
  window.addEventListener("beforeinstallprompt", (e) => {
    e.preventDefault();
    prompt = e as InstallPrompt;
  });
}

export function installOffer(): HTMLElement | null {
  const offer = prompt;
  if (!offer || standalone()) return null;
  const button = h("button.button", { type: "button", onclick: () => void busy(button, async () => void (await offer.prompt())) }, words.installOffer);
  return h("section.card.stack", null, h("h2", null, words.installOffer), h("p.muted", null, words.installWhy), h("div.buttons", null, button));
}

/** Starts the service worker. A new version waits until it is wanted: nothing changes under somebody's hands. */
export async function startWorker(message: (data: unknown) => void): Promise<void> {
  if (!navigator.serviceWorker) return;
  navigator.serviceWorker.addEventListener("message", (e) => message(e.data));
  const had = navigator.serviceWorker.controller !== null;
  let reloading = false;
  navigator.serviceWorker.addEventListener("controllerchange", () => {
    if (!had || reloading) return;
    reloading = true;
    location.reload();
  });
  const reg = await navigator.serviceWorker.register("/authenticator/worker.js", { scope: "/authenticator/", updateViaCache: "none" });
  const ready = (w: ServiceWorker | null): void => {
    if (w && navigator.serviceWorker.controller) offerUpdate(w);
  };
  ready(reg.waiting);
  reg.addEventListener("updatefound", () => {
    const w = reg.installing;
    w?.addEventListener("statechange", () => {
      if (w.state === "installed") ready(w);
    });
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") void reg.update().catch(() => {});
  });
}

function offerUpdate(w: ServiceWorker): void {
  const button = h("button.button", { type: "button", onclick: () => w.postMessage("take-over") }, words.updateUse);
  find("#update").replaceChildren(notice("info", h("p", null, words.updateReady), button));
}

