// The server's door for this device: JSON, every call signed by the device's key.
import { hex, sha256, utf8 } from "./bytes";
import { sign } from "./keys";
import { getState, putState } from "./store";
import { words } from "./words";

/** The server said no. code is its word for why. */
export class Refused extends Error {
  constructor(readonly status: number, readonly code: string, message: string) {
    super(message);
  }
}

/** The server did not say anything. */
export class Unreachable extends Error {
  constructor() {
    super(words.unreachable);
  }
}

const base = "/authenticator/v1/";

// By how many ms the server's clock is ahead of this device's.
let ahead = 0;

export async function startClock(): Promise<void> {
  ahead = (await getState<number>("ahead")) ?? 0;
}

/** The time at the server in ms, as well as this device knows it. */
export const now = (): number => Date.now() + ahead;
export const clockAhead = (): number => ahead;

// An answer that took long says little about when its time was written.
const quick = 2000;

function learn(answer: Response, sent: number): void {
  const at = Number(answer.headers.get("Latchkey-Time") ?? NaN);
  const got = Date.now();
  if (!(at > 0) || got - sent > quick || got < sent) return;
  const better = Math.round(at - (sent + got) / 2);
  const differs = Math.abs(better - ahead) > 500;
  ahead = better;
  if (differs) void putState("ahead", ahead);
}

export interface Signer {
  id: string;
  key: CryptoKey;
}

/** Calls the door. who is null for the enrolment alone. */
export async function call<T>(who: Signer | null, method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  try {
    return await once<T>(who, method, path, body, signal);
  } catch (e) {
    // The clock was wrong, and by that answer it has been put right.
    if (who && e instanceof Refused && e.status === 401 && e.code === "time") return once<T>(who, method, path, body, signal);
    throw e;
  }
}

async function once<T>(who: Signer | null, method: string, path: string, body: unknown, signal: AbortSignal | undefined): Promise<T> {
  const uri = base + path;
  const text = body === undefined ? "" : JSON.stringify(body);
  const headers: Record<string, string> = text === "" ? {} : { "Content-Type": "application/json" };
  if (who) {
    const time = String(Math.floor(now() / 1000));
    headers["Latchkey-Device"] = who.id;
    headers["Latchkey-Time"] = time;
    headers["Latchkey-Signature"] = await sign(who.key, ["latchkey-authenticator/1", method, uri, time, hex(await sha256(utf8(text)))].join("\n"));
  }
  const sent = Date.now();
  let answer: Response;
  try {
    answer = await fetch(uri, { method, headers, body: text === "" ? null : text, credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer", signal: signal ?? null });
  } catch (e) {
    if (signal?.aborted) throw e;
    throw new Unreachable();
  }
  learn(answer, sent);
  let said: unknown;
  try {
    said = answer.status === 204 ? {} : await answer.json();
  } catch (e) {
    if (signal?.aborted) throw e;
    if (answer.ok) throw new Unreachable();
    said = {};
  }
  if (answer.ok) return said as T;
  const fault = said as { code?: string; message?: string };
  throw new Refused(answer.status, fault.code ?? "", fault.message || words.refused(answer.status));
}
