// Latchkey Authenticator: the frame, the addresses, and what happens by itself.
import { account, accounts } from "./accounts";
import { add, addCodes, addDevice, offer } from "./add";
import { codes } from "./codes";
import { announce, find, h, icon, notice, tell } from "./dom";
import { startClock } from "./door";
import { startInstall, startWorker } from "./install";
import { fit } from "./keys";
import { fromHash } from "./link";
import { drop, refresh } from "./notify";
import { request, requests } from "./requests";
import { Screen, go } from "./screen";
import { link, look, onChange, rest, waiting, watch } from "./watch";
import { words } from "./words";

let shown: Screen | undefined;
let turn = 0;

function screenOf(hash: string): Screen | Promise<Screen> {
  const [, at = "", arg = ""] = hash.split("/");
  const id = /^[A-Za-z0-9_-]{1,80}$/.test(arg) ? arg : "";
  switch (at) {
    case "requests":
      return requests();
    case "request":
      return request(id);
    case "accounts":
      return accounts();
    case "account":
      return account(id);
    case "add":
      return arg === "device" ? addDevice() : arg === "codes" ? addCodes() : add();
    default:
      return codes();
  }
}

async function show(moved: boolean): Promise<void> {
  // A code must not stay in the address, where the history keeps it.
  const enrolment = fromHash(location.hash);
  if (enrolment) {
    offer(enrolment);
    history.replaceState(null, "", "#/add/device");
  }
  const mine = ++turn;
  const next = await screenOf(location.hash);
  if (mine !== turn) return next.leave?.();
  shown?.leave?.();
  shown = next;
  const title = h("h1", { tabindex: -1 }, next.title);
  find("#main").replaceChildren(title, ...next.body.filter((x): x is Node => x !== null));
  document.title = words.title(next.title);
  if (!moved) performance.mark("shown"); // a test measures it
  if (moved) {
    for (const n of document.querySelectorAll<HTMLElement>("#notices > *")) {
      if (n.dataset["stays"] === "yes") n.dataset["stays"] = "";
      else n.remove();
    }
    (next.focus ?? title).focus();
    window.scrollTo(0, 0);
  }
  frame();
}

const places = [
  ["#/codes", "codes", words.navCodes],
  ["#/requests", "bell", words.navRequests],
  ["#/accounts", "user", words.navAccounts],
] as const;

/** What stands around every screen: where one is, what waits, and whether there is a link. */
function frame(): void {
  const at = location.hash.split("/")[1] || "codes";
  const here = at === "request" ? "requests" : at === "account" || at === "add" ? "accounts" : at;
  const open = waiting();
  find("#nav").replaceChildren(
    ...places.map(([href, picture, name]) =>
      h("li", null, h("a", { href, "aria-current": href === `#/${here}` ? "page" : null }, icon(picture), h("span", null, name), href === "#/requests" && open.length > 0 ? h("span.count", null, h("span", { "aria-hidden": "true" }, String(open.length)), h("span.sr-only", null, words.waiting(open.length))) : null)),
    ),
  );
  const state = link();
  find("#connection").replaceChildren(...(state === null || state === "starting" ? [] : [h(`span.badge.${state === "down" ? "badge-warn" : "badge-ok"}`, null, icon(state === "down" ? "warn" : "check"), state === "down" ? words.offline : words.online)]));
  const first = open[0];
  const asked = at === "requests" || !first || (at === "request" && open.some((w) => location.hash === `#/request/${w.request.id}`));
  find("#waiting").replaceChildren(...(asked ? [] : [notice("info", h("p", null, words.requestArrived(first.about.machine)), h("a.button.primary", { href: `#/request/${first.request.id}` }, words.requestOpen))]));
}

async function start(): Promise<void> {
  if (!fit()) {
    find("#main").replaceChildren(h("h1", null, words.product), notice("bad", h("p", null, words.unfit)));
    return;
  }
  startInstall();
  await startClock();
  onChange(({ came, gone }) => {
    if (gone) {
      tell("warn", words.gone(gone.user, gone.server), true);
      void drop().catch(() => {}); // nobody would be knocked for
      void show(true);
      return;
    }
    const first = came[0];
    if (first) announce(words.requestArrived(first.about.machine), true);
    frame();
    shown?.changed?.();
    // Somebody who has just opened the app came for this.
    if (first && location.hash === "") go(`#/request/${first.request.id}`);
  });
  window.addEventListener("hashchange", () => void show(true).catch(failed));
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") void look();
    else rest();
  });
  window.addEventListener("online", () => void look());
  window.addEventListener("offline", () => void look());
  await show(false);
  await watch();
  await startWorker((data) => {
    if (data === "look") void look();
    const to = (data as { go?: unknown } | null)?.go;
    if (typeof to === "string" && to.startsWith("#/")) {
      void look();
      go(to);
    }
  });
  await refresh();
}

function failed(e: unknown): void {
  console.error(e);
  find("#main").replaceChildren(h("h1", { tabindex: -1 }, words.product), notice("bad", h("p", null, words.failed), h("p.mono", null, e instanceof Error ? `${e.name}: ${e.message}` : String(e))));
}

start().catch(failed);
