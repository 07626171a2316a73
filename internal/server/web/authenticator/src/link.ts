// What a QR code, or a pasted line, may hold.
import { Bytes, fromBase32 } from "./bytes";

/** A TOTP authenticator as an otpauth URI describes it. */
export interface Wanted {
  secret: Bytes;
  hash: "SHA-1" | "SHA-256" | "SHA-512";
  digits: number;
  period: number;
  issuer: string;
  user: string;
}

export type Read =
  | { kind: "enrol"; code: string }
  | { kind: "elsewhere"; origin: string } // an enrolment at another server
  | { kind: "codes"; wanted: Wanted }
  | { kind: "nothing" };

const home = "/authenticator/";
const codeForm = /^[A-Za-z0-9_-]{6,128}$/;
const longest = 2048;

/** Says what a text is. origin is that of this app. */
export function read(text: string, origin: string): Read {
  const line = text.trim();
  if (line === "" || line.length > longest) return { kind: "nothing" };
  if (/^otpauth:/i.test(line)) {
    const wanted = otpauth(line);
    return wanted ? { kind: "codes", wanted } : { kind: "nothing" };
  }
  if (line.toLowerCase().startsWith("https://")) {
    const url = parse(line);
    const code = url?.pathname === home ? fromHash(url.hash) : null;
    if (!url || !code) return { kind: "nothing" };
    return url.origin === origin ? { kind: "enrol", code } : { kind: "elsewhere", origin: url.origin };
  }
  return codeForm.test(line) ? { kind: "enrol", code: line } : { kind: "nothing" };
}

/** The enrolment code in the fragment of an address, or null. A fragment is never sent to a server. */
export function fromHash(hash: string): string | null {
  const code = /^#e=(.+)$/.exec(hash)?.[1];
  return code && codeForm.test(code) ? code : null;
}

/** Reads an otpauth URI; null for what is none, or asks for something that nobody should. */
export function otpauth(line: string): Wanted | null {
  const url = parse(line);
  // Engines differ in whether "totp" is the host or a part of the path.
  const rest = /^otpauth:\/\/totp\/([^?]*)/i.exec(line);
  if (!url || !rest) return null;
  const p = url.searchParams;
  const secret = fromBase32(p.get("secret") ?? "");
  const hash = ({ SHA1: "SHA-1", SHA256: "SHA-256", SHA512: "SHA-512" } as const)[(p.get("algorithm") ?? "SHA1").toUpperCase().replace("-", "") as "SHA1"];
  const digits = Number(p.get("digits") ?? 6);
  const period = Number(p.get("period") ?? 30);
  if (!secret || secret.length < 10 || !hash || ![6, 7, 8].includes(digits) || !(period >= 15 && period <= 120 && Number.isInteger(period))) return null;
  let label = "";
  try {
    label = decodeURIComponent(rest[1] ?? "");
  } catch {
    return null;
  }
  const colon = label.indexOf(":");
  const short = (s: string): string => s.trim().slice(0, 100);
  return {
    secret, hash, digits, period,
    issuer: short(p.get("issuer") ?? (colon > 0 ? label.slice(0, colon) : "")),
    user: short(colon > 0 ? label.slice(colon + 1) : label),
  };
}

function parse(line: string): URL | null {
  try {
    return new URL(line);
  } catch {
    return null;
  }
}
