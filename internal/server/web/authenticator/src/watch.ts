// What waits for an answer: one long poll for each account while the app is open and can
// be seen. What a push service brings only says "look".
import { Refused, Unreachable, call } from "./door";
import { Account, allAccounts, dropAccount } from "./store";

/** A request as the server sent it. What is shown is read from content, which is what is signed. */
export interface Request {
  id: string;
  content: string;
  nonce: string;
  digits: number;
  expires: number; // s
  verification: boolean;
  verification_id: string;
}

/** What a request is about. */
export interface About {
  machine: string;
  place: string;
  address: string;
  scope: string;
  service: string;
  door: string;
  user: string;
  at: number;
  expires: number;
  nonce: string;
}

export interface Waiting {
  account: Account;
  request: Request;
  about: About;
}

/** Reads a content; null if it is none, or another one than the request says. */
export function about(r: Request): About | null {
  try {
    const a = JSON.parse(r.content) as Partial<Record<keyof About, unknown>>;
    const text = (v: unknown): string => (typeof v === "string" ? v : "");
    const number = (v: unknown): number => (typeof v === "number" ? v : 0);
    if (a.nonce !== r.nonce || text(a.nonce) === "") return null;
    return {
      machine: text(a.machine), place: text(a.place), address: text(a.address), scope: text(a.scope), service: text(a.service), door: text(a.door), user: text(a.user),
      at: number(a.at), expires: number(a.expires), nonce: text(a.nonce),
    };
  } catch {
    return null;
  }
}

export type Link = "starting" | "up" | "down" | "locked" | "wrong";

interface Watched {
  account: Account;
  link: Link;
  waiting: Waiting[];
  stop: AbortController;
}

type Change = { came: Waiting[]; gone?: Account };

const watched = new Map<string, Watched>();
let listener: (c: Change) => void = () => {};

export const onChange = (fn: (c: Change) => void): void => void (listener = fn);

export const waiting = (): Waiting[] => [...watched.values()].flatMap((w) => w.waiting);
export const linkOf = (id: string): Link => watched.get(id)?.link ?? "starting";

/** The worst link of all accounts; null if there is none that has one. */
export function link(): Link | null {
  const all = [...watched.values()].map((w) => w.link);
  for (const l of ["down", "starting", "wrong", "locked", "up"] as const) if (all.includes(l)) return l;
  return null;
}

/** Forgets an answered request at once; the next poll would say the same. */
export function forget(id: string): void {
  for (const w of watched.values()) w.waiting = w.waiting.filter((x) => x.request.id !== id);
  listener({ came: [] });
}

/** Begins to watch what is not watched yet, and stops with what is no longer there. */
export async function watch(): Promise<void> {
  const accounts = (await allAccounts()).filter((a) => a.key);
  for (const [id, w] of watched) {
    if (accounts.some((a) => a.id === id)) continue;
    w.stop.abort();
    watched.delete(id);
  }
  if (document.visibilityState !== "visible") return;
  for (const account of accounts) {
    const old = watched.get(account.id);
    if (old && !old.stop.signal.aborted) {
      old.account = account;
      continue;
    }
    const w: Watched = { account, link: old?.link ?? "starting", waiting: old?.waiting ?? [], stop: new AbortController() };
    watched.set(account.id, w);
    void loop(w);
  }
}

/** Looks now: something has changed, or the network is back. */
export async function look(): Promise<void> {
  rest();
  await watch();
}

/** Stops; nobody looks at the app. */
export function rest(): void {
  for (const w of watched.values()) w.stop.abort();
}

const hang = 25; // s, of a poll
const pauses = [1000, 2000, 4000, 8000, 15000];

async function loop(w: Watched): Promise<void> {
  const signal = w.stop.signal;
  let failures = 0;
  let first = true;
  while (!signal.aborted) {
    try {
      const known = w.waiting.map((x) => x.request.id).join(",");
      // The first one does not hang: whether there is a link is known at once.
      const wait = first || w.link !== "up" ? 0 : hang;
      const path = `requests?wait=${wait}&known=${encodeURIComponent(known)}`;
      const signer = { id: w.account.id, key: w.account.key as CryptoKey };
      const timeout = AbortSignal.any([signal, AbortSignal.timeout((wait + 15) * 1000)]);
      const began = Date.now();
      const said = await call<{ requests: Request[]; locked?: boolean }>(signer, "GET", path, undefined, timeout);
      if (signal.aborted) return;
      failures = 0;
      first = false;
      const before = new Set(w.waiting.map((x) => x.request.id));
      w.waiting = said.requests.flatMap((request) => {
        const what = about(request);
        return what ? [{ account: w.account, request, about: what }] : [];
      });
      w.link = said.locked ? "locked" : "up";
      listener({ came: w.waiting.filter((x) => !before.has(x.request.id)) });
      // A server that does not hang must not be asked without end.
      if (wait > 0 && Date.now() - began < 300 && w.waiting.every((x) => before.has(x.request.id)) && w.waiting.length === before.size) await pause(1000, signal);
      if (w.link === "locked") await pause(15_000, signal);
    } catch (e) {
      if (signal.aborted) return;
      if (e instanceof Refused && e.status === 410) {
        await wipe(w.account);
        return;
      }
      w.link = e instanceof Refused && e.status === 401 ? "wrong" : e instanceof Refused && e.code === "locked" ? "locked" : "down";
      if (!(e instanceof Refused) && !(e instanceof Unreachable) && !(e instanceof DOMException)) console.error(e);
      w.waiting = w.waiting.filter((x) => x.request.expires * 1000 > Date.now() - 60_000);
      listener({ came: [] });
      await pause(pauses[Math.min(failures++, pauses.length - 1)] as number, signal);
    }
  }
}

/** Deletes what is kept of an account that the server does not know any more. */
async function wipe(account: Account): Promise<void> {
  await dropAccount(account.id);
  watched.get(account.id)?.stop.abort();
  watched.delete(account.id);
  listener({ came: [], gone: account });
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
