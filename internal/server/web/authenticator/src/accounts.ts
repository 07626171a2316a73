// The accounts of this device, and what can be set for each.
import { announce, ask, busy, field, h, icon, notice, tell } from "./dom";
import { Refused, Unreachable, call } from "./door";
import { drop, notifications, switchOff, switchOn } from "./notify";
import { installOffer } from "./install";
import { Screen, go } from "./screen";
import { Account, allAccounts, dropAccount, putAccount } from "./store";
import { available, create } from "./verify";
import { linkOf, watch } from "./watch";
import { words } from "./words";

const kind = (a: Account): string => (!a.key ? words.accountKindCodes : a.seed ? words.accountKindDevice : words.accountKindPush);

export async function accounts(): Promise<Screen> {
  const all = await allAccounts();
  const safe = (await navigator.storage?.persisted?.()) ?? false;
  const list =
    all.length === 0
      ? h("div.empty", null, icon("user"), h("h2", null, words.accountsNone), h("p", null, words.accountsNoneText))
      : h("ul.stack", null, ...all.map((a) => h("li", null, h("a.card.link-card", { href: `#/account/${a.id}` }, h("span.grow", null, h("strong", null, a.user || words.codesUnnamed), h("span.muted", null, `${a.server} · ${kind(a)}`)), icon("next")))));
  return {
    title: words.accounts,
    body: [
      list,
      h("div.buttons", null, h("a.button.primary.wide", { href: "#/add" }, icon("plus"), words.accountAdd)),
      installOffer(),
      h("section.card.stack", null, h("h2", null, words.exportTitle), h("p", null, words.exportText)),
      h("section.card.stack", null, h("h2", null, words.keep), h("p", null, safe ? words.keepSafe : words.keepUnsafe)),
      h("section.card.stack", null, h("h2", null, words.about), h("dl.facts", null, h("dt", null, words.server), h("dd", null, location.host), h("dt", null, words.version), h("dd", null, document.body.dataset["version"] ?? ""))),
    ],
  };
}

export async function account(id: string): Promise<Screen> {
  const a = (await allAccounts()).find((x) => x.id === id);
  if (!a) return accounts();
  const trouble = h("div", { role: "alert" });
  const bad = (e: unknown): void => trouble.replaceChildren(notice("bad", h("p", null, e instanceof Error ? e.message : String(e))));
  /** Runs something that talks to the server, and says what went wrong. */
  const attempt = (button: HTMLButtonElement, run: () => Promise<void>): void => {
    trouble.replaceChildren();
    void busy(button, async () => {
      try {
        await run();
      } catch (e) {
        bad(e);
      }
    });
  };
  const parts: (Node | null)[] = [trouble];
  if (a.key) {
    const signer = { id: a.id, key: a.key };
    if (linkOf(a.id) === "locked") parts.push(notice("warn", h("h2", null, words.lockedTitle), h("p", null, words.lockedText)));
    parts.push(await notifying(a, attempt), await checking(a, signer, attempt), naming(a, signer, attempt));
  }
  parts.push(removing(a, bad));
  return { title: words.codeOf(a.user || words.codesUnnamed, a.server), body: parts };
}

type Attempt = (button: HTMLButtonElement, run: () => Promise<void>) => void;

const again = (a: Account): void => go(`#/account/${a.id}`);

const part = (title: string, state: Node | null, ...body: (Node | null)[]): HTMLElement => h("section.card.stack", null, h("div.row", null, h("h2", null, title), state), ...body);
const mark = (on: boolean, text: string): HTMLElement => h(`span.badge.${on ? "badge-ok" : "badge-neutral"}`, null, icon(on ? "check" : "info"), text);

async function notifying(a: Account, attempt: Attempt): Promise<HTMLElement> {
  const state = await notifications(a);
  if (state === "none") return part(words.notifications, null, h("p.muted", null, words.notificationsNone));
  if (state === "denied") return part(words.notifications, mark(false, words.notificationsOff), h("p.muted", null, words.notificationsDenied));
  const on = state === "on";
  const button = h("button.button", {
    type: "button",
    onclick: () =>
      attempt(button, async () => {
        if (on) {
          await switchOff(a);
          tell("ok", words.notificationsUnset, true);
          return again(a);
        }
        const got = await switchOn(a);
        if (got === "failed") throw new Error(words.notificationsFailed);
        if (got === "denied") throw new Error(words.notificationsDenied);
        tell("ok", words.notificationsSet, true);
        again(a);
      }),
  }, on ? words.notificationsStop : words.notificationsAllow);
  return part(words.notifications, mark(on, on ? words.notificationsOn : words.notificationsOff), h("p.muted", null, words.notificationsWhy), h("div.buttons", null, button));
}

async function checking(a: Account, signer: { id: string; key: CryptoKey }, attempt: Attempt): Promise<HTMLElement> {
  if (!(await available())) return part(words.biometric, mark(false, words.biometricNot), h("p.muted", null, words.biometricNone));
  const button = h("button.button", {
    type: "button",
    onclick: () =>
      attempt(button, async () => {
        const begun = await call<{ options: Parameters<typeof create>[0]; ticket: string }>(signer, "POST", "verification/begin", {});
        const credential = await create(begun.options);
        if (!credential) throw new Error(words.biometricFailed);
        const got = await call<{ id: string }>(signer, "POST", "verification", { ticket: begun.ticket, credential });
        a.verification = got.id;
        await putAccount(a);
        tell("ok", words.biometricSet, true);
        again(a);
      }),
  }, a.verification ? words.biometricAgain : words.biometricSetUp);
  const on = a.verification !== undefined;
  return part(words.biometric, mark(on, on ? words.biometricOn : words.biometricNot), h("p.muted", null, words.biometricWhy), h("div.buttons", null, button));
}

function naming(a: Account, signer: { id: string; key: CryptoKey }, attempt: Attempt): HTMLElement {
  const input = h("input", { type: "text", autocomplete: "off", maxlength: 64, value: a.name, name: "device" });
  const name = field("device", words.enrolName, words.enrolNameHint, input);
  const button = h("button.button", { type: "submit" }, words.rename);
  return h("form.card.stack", {
    novalidate: true,
    onsubmit: (e: SubmitEvent) => {
      e.preventDefault();
      const called = input.value.trim();
      if (called === "") return name.bad(words.enrolNameBad);
      name.bad("");
      attempt(button, async () => {
        await call(signer, "PATCH", "account", { name: called });
        a.name = called;
        await putAccount(a);
        tell("ok", words.renamed);
      });
    },
  }, name.row, h("div.buttons", null, button));
}

function removing(a: Account, bad: (e: unknown) => void): HTMLElement {
  const button = h("button.button.danger-line", { type: "button", onclick: () => void busy(button, remove) }, words.remove);
  const remove = async (): Promise<void> => {
    const text = a.key ? words.removeText : words.removeCodesText;
    if (!(await ask({ title: `${words.remove}?`, text, yes: words.removeYes, no: words.cancel }))) return;
    if (a.key) {
      try {
        await call({ id: a.id, key: a.key }, "DELETE", "account");
      } catch (e) {
        if (e instanceof Unreachable) {
          if (!(await ask({ title: words.removeOffline, text: words.removeOfflineText, yes: words.removeHere, no: words.cancel }))) return;
        } else if (!(e instanceof Refused && e.status === 410)) return bad(e);
      }
    }
    await dropAccount(a.id);
    await watch();
    await drop().catch(() => {});
    announce(words.removed(a.user));
    tell("ok", words.removed(a.user || words.codesUnnamed), true);
    go("#/accounts");
  };
  return h("section.card.stack", null, h("h2", null, words.remove), h("p.muted", null, a.key ? words.removeText : words.removeCodesText), h("div.buttons", null, button));
}
