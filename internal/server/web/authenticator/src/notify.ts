// Notifications: the browser's push service wakes the app when something waits (RFC 8030).
import { base64url, fromBase64url } from "./bytes";
import { call } from "./door";
import { Account, allAccounts, putAccount } from "./store";

export type Notifications = "none" | "denied" | "off" | "on";

const registration = async (): Promise<ServiceWorkerRegistration | null> => (await navigator.serviceWorker?.getRegistration()) ?? null;

export async function notifications(a: Account): Promise<Notifications> {
  if (!("Notification" in window) || !("PushManager" in window) || !a.vapid || !a.key) return "none";
  if (Notification.permission === "denied") return "denied";
  const now = await (await registration())?.pushManager.getSubscription();
  return Notification.permission === "granted" && now && a.told === now.endpoint ? "on" : "off";
}

/** Asks for what is needed and tells the server where to knock. */
export async function switchOn(a: Account): Promise<"on" | "denied" | "failed"> {
  if ((await Notification.requestPermission()) !== "granted") return "denied";
  const reg = await registration();
  if (!reg) return "failed";
  try {
    const key = fromBase64url(a.vapid as string);
    let sub = await reg.pushManager.getSubscription();
    // One made for another key, before the server got a new one, would not be knocked at.
    if (sub && base64url(sub.options.applicationServerKey ?? new ArrayBuffer(0)) !== base64url(key)) {
      await sub.unsubscribe();
      sub = null;
    }
    sub ??= await reg.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
    await told(a, sub);
    return "on";
  } catch (e) {
    if (e instanceof DOMException) return "failed"; // the push service can not be reached
    throw e;
  }
}

async function told(a: Account, sub: PushSubscription): Promise<void> {
  const keys = sub.toJSON().keys ?? {};
  await call({ id: a.id, key: a.key as CryptoKey }, "POST", "subscription", { endpoint: sub.endpoint, p256dh: keys["p256dh"] ?? "", auth: keys["auth"] ?? "" });
  a.told = sub.endpoint;
  await putAccount(a);
}

export async function switchOff(a: Account): Promise<void> {
  await call({ id: a.id, key: a.key as CryptoKey }, "DELETE", "subscription");
  delete a.told;
  await putAccount(a);
  await drop();
}

/** Gives the address up when no account uses it any more. */
export async function drop(): Promise<void> {
  if ((await allAccounts()).some((a) => a.told)) return;
  await (await (await registration())?.pushManager?.getSubscription())?.unsubscribe();
}

/** Browsers change the address now and then: the server is told the new one. */
export async function refresh(): Promise<void> {
  const sub = await (await registration())?.pushManager?.getSubscription();
  if (!sub) return;
  for (const a of await allAccounts()) {
    if (a.told && a.told !== sub.endpoint) await told(a, sub).catch(() => {}); // the next start tries again
  }
}
