// What this device keeps, in the browser's database. Keys are CryptoKey objects that can
// be used and not read: there is no form of them that could be copied to another device.

/** A TOTP seed as a key, and how its codes are made (RFC 6238). */
export interface Seed {
  key: CryptoKey; // HMAC
  digits: number;
  period: number; // seconds
}

export interface Account {
  id: string; // the server's id of this device; of an account with codes alone a random one
  kind: "device" | "codes";
  server: string; // what the server or the issuer calls itself
  user: string;
  name: string; // of this device
  added: number; // ms
  key?: CryptoKey; // ECDSA P-256: signs what this device says to the server
  seed?: Seed;
  vapid?: string; // the server's key for Web Push
  verification?: string; // credential id of it
  told?: string; // the push address that the server knows
}

const accounts = "accounts";
const state = "state";

let opened: Promise<IDBDatabase> | undefined;

function database(): Promise<IDBDatabase> {
  opened ??= new Promise<IDBDatabase>((resolve, reject) => {
    const r = indexedDB.open("latchkey-authenticator", 1);
    r.onupgradeneeded = () => {
      r.result.createObjectStore(accounts, { keyPath: "id" });
      r.result.createObjectStore(state);
    };
    r.onsuccess = () => {
      // A newer version of the app in another window wants to change the database.
      r.result.onversionchange = () => r.result.close();
      resolve(r.result);
    };
    r.onerror = () => reject(r.error);
    r.onblocked = () => reject(new Error("the database is in use by another version"));
  });
  opened.catch(() => (opened = undefined));
  return opened;
}

/** Runs one request in a transaction of its own, and is done when that is on disk. */
async function run<T>(store: string, mode: IDBTransactionMode, ask: (s: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const db = await database();
  return new Promise<T>((resolve, reject) => {
    const tx = db.transaction(store, mode, { durability: "strict" });
    const r = ask(tx.objectStore(store));
    tx.oncomplete = () => resolve(r.result);
    tx.onabort = tx.onerror = () => reject(tx.error ?? r.error ?? new Error("nothing was stored"));
  });
}

export const allAccounts = async (): Promise<Account[]> =>
  ((await run(accounts, "readonly", (s) => s.getAll())) as Account[]).sort((a, b) => a.added - b.added);
export const putAccount = (a: Account): Promise<unknown> => run(accounts, "readwrite", (s) => s.put(a));
export const dropAccount = (id: string): Promise<unknown> => run(accounts, "readwrite", (s) => s.delete(id));

export const getState = <T>(name: string): Promise<T | undefined> => run(state, "readonly", (s) => s.get(name)) as Promise<T | undefined>;
export const putState = (name: string, value: unknown): Promise<unknown> => run(state, "readwrite", (s) => s.put(value, name));
