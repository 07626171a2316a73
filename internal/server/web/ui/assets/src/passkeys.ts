// Passkeys: a form marked data-passkey asks the browser for one ("get") or has it make one ("create"), puts the answer
// into its field "code" and is sent. The options stand in the form, or are fetched when its button is pressed. And a form
// marked data-wait looks by itself whether a phone has answered.
import { announce, find, forEach } from "./page";

type Json = Record<string, unknown>;

export function startPasskeys(): void {
  forEach("form[data-passkey]", (element) => {
    const form = element as HTMLFormElement;
    if (!("PublicKeyCredential" in window) || !navigator.credentials) {
      if (form.dataset["begin"] && form.dataset["passkey"] === "get") form.hidden = true;
      else say(form, form.dataset["missing"] ?? "");
      find<HTMLButtonElement>("button[type=submit]", form)?.setAttribute("disabled", "");
      return;
    }
    form.addEventListener("submit", (event) => {
      if (form.dataset["ready"]) return;
      event.preventDefault();
      void ask(form);
    });
    // Who has chosen a passkey a moment ago is asked at once.
    if (form.dataset["options"]) void ask(form);
  });
  forEach("form[data-wait]", (element) => void wait(element as HTMLFormElement));
}

function say(form: HTMLFormElement, text: string): void {
  const line = find("[data-passkey-says]", form);
  if (!line) return;
  line.setAttribute("role", "alert");
  line.textContent = text;
  line.hidden = text === "";
}

function busy(form: HTMLFormElement, on: boolean): void {
  if (on) form.dataset["asking"] = "yes";
  else delete form.dataset["asking"];
  form.setAttribute("aria-busy", String(on));
}

async function ask(form: HTMLFormElement): Promise<void> {
  if (form.dataset["asking"]) return;
  busy(form, true);
  say(form, "");
  try {
    const options = await optionsOf(form);
    if (!options) return;
    announce(form.dataset["working"] ?? "");
    const answer = form.dataset["passkey"] === "create" ? await create(options) : await get(options);
    field(form, "code", JSON.stringify(answer));
    form.dataset["ready"] = "yes";
    delete form.dataset["sent"];
    form.requestSubmit();
  } catch (error) {
    const known = error instanceof DOMException && error.name === "InvalidStateError" ? form.dataset["known"] : undefined;
    say(form, known ?? form.dataset["aborted"] ?? "");
  } finally {
    busy(form, false);
  }
}

async function optionsOf(form: HTMLFormElement): Promise<Json | null> {
  const begin = form.dataset["begin"];
  if (!begin) return JSON.parse(form.dataset["options"] ?? "{}") as Json;
  const reply = await fetch(begin, { method: "POST", headers: { Accept: "application/json" }, redirect: "error" });
  const body = (await reply.json()) as { options?: Json; ticket?: string; says?: string };
  if (!body.options) {
    say(form, body.says ?? form.dataset["aborted"] ?? "");
    return null;
  }
  if (body.ticket) field(form, "ticket", body.ticket);
  return body.options;
}

function field(form: HTMLFormElement, name: string, value: string): void {
  const input = form.elements.namedItem(name);
  if (input instanceof HTMLInputElement) input.value = value;
}

// What travels as JSON is base64url; what the browser takes and gives are octets (WebAuthn Level 3 §5.1.8, §5.1.9). Not every
// browser has the functions for it.
function octets(text: unknown): ArrayBuffer {
  const raw = atob(String(text).replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(raw, (c) => c.charCodeAt(0)).buffer;
}

function letters(data: ArrayBuffer | null): string | undefined {
  if (!data) return undefined;
  let raw = "";
  for (const b of new Uint8Array(data)) raw += String.fromCharCode(b);
  return btoa(raw).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

function named(list: unknown): PublicKeyCredentialDescriptor[] {
  return ((list as Json[] | undefined) ?? []).map((d) => ({ ...d, id: octets(d["id"]) }) as unknown as PublicKeyCredentialDescriptor);
}

async function get(options: Json): Promise<Json> {
  const publicKey = { ...options, challenge: octets(options["challenge"]), allowCredentials: named(options["allowCredentials"]) };
  const made = (await navigator.credentials.get({ publicKey: publicKey as PublicKeyCredentialRequestOptions })) as PublicKeyCredential;
  const r = made.response as AuthenticatorAssertionResponse;
  return {
    id: made.id, rawId: letters(made.rawId), type: made.type, authenticatorAttachment: made.authenticatorAttachment ?? undefined, clientExtensionResults: {},
    response: { clientDataJSON: letters(r.clientDataJSON), authenticatorData: letters(r.authenticatorData), signature: letters(r.signature), userHandle: letters(r.userHandle) },
  };
}

async function create(options: Json): Promise<Json> {
  const user = options["user"] as Json;
  const publicKey = {
    ...options, challenge: octets(options["challenge"]), user: { ...user, id: octets(user["id"]) }, excludeCredentials: named(options["excludeCredentials"]),
  };
  const made = (await navigator.credentials.create({ publicKey: publicKey as unknown as PublicKeyCredentialCreationOptions })) as PublicKeyCredential;
  const r = made.response as AuthenticatorAttestationResponse;
  const discoverable = made.getClientExtensionResults().credProps?.rk;
  return {
    id: made.id, rawId: letters(made.rawId), type: made.type, authenticatorAttachment: made.authenticatorAttachment ?? undefined,
    clientExtensionResults: discoverable === undefined ? {} : { credProps: { rk: discoverable } },
    response: { clientDataJSON: letters(r.clientDataJSON), attestationObject: letters(r.attestationObject), transports: r.getTransports?.() ?? [] },
  };
}

// A phone's answer is looked for again and again; the server holds each look for some seconds. Who leaves the page by a link,
// or closes it, does not wait any more, and the phone asks no more. What is sent as a form says by itself what comes of it.
async function wait(form: HTMLFormElement): Promise<void> {
  let goesOn = false;
  document.addEventListener("submit", () => (goesOn = true));
  window.addEventListener("pagehide", () => {
    if (!goesOn && form.isConnected && form.dataset["leave"]) navigator.sendBeacon(form.dataset["leave"], new URLSearchParams());
  });
  for (;;) {
    let reply: Response;
    try {
      reply = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form) as unknown as Record<string, string>), headers: { "HX-Request": "true" }, redirect: "error" });
    } catch {
      await new Promise((go) => setTimeout(go, 3000));
      continue;
    }
    if (!form.isConnected || form.dataset["sent"]) return;
    const to = reply.headers.get("HX-Redirect");
    if (to || (reply.status !== 429 && reply.status !== 204)) goesOn = true;
    if (to) return location.assign(to);
    // Too many looks: the page says what is the matter when its button is pressed.
    if (reply.status === 429) await new Promise((go) => setTimeout(go, 10_000));
    else if (reply.status !== 204) return location.reload();
    else await new Promise((go) => setTimeout(go, 250));
  }
}
