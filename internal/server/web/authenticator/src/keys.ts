// The keys of this device. None can be exported: extractable is false for all of them.
import { base64url, sha256, utf8 } from "./bytes";
import { Seed } from "./store";
import { Wanted } from "./link";

const ecdsa = { name: "ECDSA", namedCurve: "P-256" };

/** Makes the key of a device; the public half comes as SPKI in base64url. */
export async function makeDeviceKey(): Promise<{ key: CryptoKey; spki: string }> {
  const pair = await crypto.subtle.generateKey(ecdsa, false, ["sign"]);
  return { key: pair.privateKey, spki: base64url(await crypto.subtle.exportKey("spki", pair.publicKey)) };
}

/** Signs a text: ECDSA P-256 with SHA-256, r and s side by side, in base64url. */
export async function sign(key: CryptoKey, text: string): Promise<string> {
  return base64url(await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, key, utf8(text)));
}

/** The text under an answer to a request. */
export function answerText(id: string, decision: string, number: string, nonce: string, contentHash: string): string {
  return ["latchkey-push/1", id, decision, number, nonce, contentHash].join("\n");
}

export const contentHash = async (content: string): Promise<string> => base64url(await sha256(utf8(content)));

/** Turns a seed into a key. The seed itself is forgotten. */
export async function keepSeed(w: Wanted): Promise<Seed> {
  const key = await crypto.subtle.importKey("raw", w.secret, { name: "HMAC", hash: w.hash }, false, ["sign"]);
  w.secret.fill(0);
  return { key, digits: w.digits, period: w.period };
}

/** The code of a time in seconds (RFC 6238; RFC 4226 §5.3). */
export async function code(seed: Seed, seconds: number): Promise<string> {
  const counter = new DataView(new ArrayBuffer(8));
  counter.setBigUint64(0, BigInt(Math.floor(seconds / seed.period)));
  const mac = new DataView(await crypto.subtle.sign("HMAC", seed.key, counter.buffer));
  const at = mac.getUint8(mac.byteLength - 1) & 0xf;
  const number = (mac.getUint32(at) & 0x7fffffff) % 10 ** seed.digits;
  return String(number).padStart(seed.digits, "0");
}

/** Whether this browser can do what the app needs; a browser that is too old, or a page without TLS, can not. */
export const fit = (): boolean => window.isSecureContext && "subtle" in crypto && "indexedDB" in window;
