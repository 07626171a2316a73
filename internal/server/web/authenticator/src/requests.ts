// What waits for an answer, and the answer.
import { announce, ask, busy, field, find, h, icon, notice } from "./dom";
import { Refused, call, now } from "./door";
import { answerText, contentHash, sign } from "./keys";
import { Screen, go } from "./screen";
import { Account, allAccounts } from "./store";
import { confirm } from "./verify";
import { About, Request, Waiting, about, forget, linkOf, look, waiting } from "./watch";
import { words } from "./words";

export async function requests(): Promise<Screen> {
  const devices = (await allAccounts()).filter((a) => a.key);
  const list = h("div.stack");
  const show = (): void => list.replaceChildren(...content());
  const content = (): Node[] => {
    if (devices.length === 0) {
      return [h("div.empty", null, h("h2", null, words.requestsNoDevice), h("p", null, words.requestsNoDeviceText), h("a.button", { href: "#/add" }, icon("plus"), words.accountAdd))];
    }
    const troubles = devices.flatMap((a) => {
      const link = linkOf(a.id);
      if (link === "locked") return [notice("warn", h("h2", null, `${words.lockedTitle}: ${a.user}`), h("p", null, words.lockedText))];
      if (link === "wrong") return [notice("bad", h("p", null, words.wrongKey(a.user)))];
      return [];
    });
    if (devices.some((a) => linkOf(a.id) === "down")) troubles.push(notice("warn", h("h2", null, words.requestsOffline), h("p", null, words.unreachable)));
    const all = waiting();
    if (all.length > 0) {
      return [...troubles, h("ul.stack", null, ...all.map((w) => h("li", null, h("a.card.link-card", { href: `#/request/${w.request.id}` }, h("span.grow", null, h("strong", null, w.about.machine), h("span.muted", null, words.scope(w.about.scope, w.about.door))), icon("next")))))];
    }
    if (devices.every((a) => linkOf(a.id) === "locked" || linkOf(a.id) === "wrong")) return troubles;
    return [...troubles, h("div.empty", null, icon("bell"), h("h2", null, words.requestsNone), h("p", null, words.requestsNoneText))];
  };
  show();
  return { title: words.requests, body: [list], changed: show };
}

export async function request(id: string): Promise<Screen> {
  const w = waiting().find((x) => x.request.id === id);
  const body = h("div.stack");
  const devices = (await allAccounts()).filter((a) => a.key);
  if (!w) {
    // It may be about to come: the app was opened by a notification.
    body.append(end("info", words.over, words.overText));
    const asked = new Set<string>();
    // Or whoever asked has withdrawn it already: then it is shown what it was, and can be reported.
    const seek = async (): Promise<void> => {
      for (const account of devices) {
        if (asked.has(account.id) || linkOf(account.id) !== "up") continue;
        asked.add(account.id);
        const past = await before(account, id);
        if (!past || !body.isConnected) continue;
        for (const other of devices) asked.add(other.id);
        open(past, body, devices.length > 1, true);
        return;
      }
    };
    const screen: Screen = { title: words.request, body: [body] };
    screen.changed = () => {
      if (waiting().some((x) => x.request.id === id)) go(`#/request/${id}`);
      else void seek();
    };
    setTimeout(() => void seek()); // when it is shown
    return screen;
  }
  return open(w, body, devices.length > 1, false);
}

/** A request that is over and can still be reported; null if there is none. */
async function before(account: Account, id: string): Promise<Waiting | null> {
  try {
    const request = await call<Request>({ id: account.id, key: account.key as CryptoKey }, "GET", `requests/${encodeURIComponent(id)}`);
    const what = about(request);
    return what && { account, request, about: what };
  } catch {
    return null; // the screen says that it is over
  }
}

const fact = (term: string, value: string, strong = false): Node[] => [h("dt", null, term), h("dd", null, strong ? h("strong", null, value === "" ? words.unknown : value) : value === "" ? words.unknown : value)];

/** What a request is about, as a card. */
function facts(about: About, account: Account, several: boolean): HTMLElement {
  return h("div.card.tight", null, h(
    "dl.facts", null,
    ...fact(words.machine, about.machine, true), ...fact(words.place, about.place), ...fact(words.what, words.scope(about.scope, about.door)),
    ...(about.service === "" || about.door !== "machine" ? [] : fact(words.service, about.service)), ...fact(words.address, about.address),
    ...fact(words.time, new Date(about.at * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" })),
    ...(several ? fact(words.account, words.codeOf(about.user || account.user, account.server)) : []),
  ));
}

function end(kind: "ok" | "info" | "warn" | "bad", title: string, text: string): HTMLElement {
  return h("div.stack", null, notice(kind, h("h2", { tabindex: -1 }, title), h("p", null, text)), h("div.buttons", null, h("a.button.primary.wide", { href: "#/requests" }, words.done)));
}

function open(w: Waiting, body: HTMLElement, several: boolean, past: boolean): Screen {
  const { request, about, account } = w;
  let over = past;
  let timer = 0;

  const finish = (kind: "ok" | "info" | "warn" | "bad", title: string, text: string): void => {
    over = true;
    clearInterval(timer);
    if (!past) forget(request.id);
    const last = end(kind, title, text);
    body.replaceChildren(last);
    const heading = find("#main h1");
    heading.textContent = words.requestDone;
    document.title = words.title(title);
    last.querySelector("h2")?.focus();
    announce(`${title}. ${text}`, kind !== "ok");
  };
  // Nobody has answered, or another phone has: "it wasn't me" counts for a quarter of an hour, whoever has ended it.
  const gone = (): void => {
    finish("info", words.over, words.overText);
    trouble.replaceChildren();
    body.firstElementChild?.firstElementChild?.after(h("p", null, words.overMine), facts(about, account, several), trouble, report);
  };

  const input = h("input.digits", { inputmode: "numeric", autocomplete: "off", maxlength: 2, pattern: "[0-9]{2}", size: 2, enterkeyhint: "done", name: "number" });
  const number = field("number", words.number, words.numberHint, input);
  const trouble = h("div", { role: "alert" });
  const left = h("span.num");
  const bar = h("progress", { max: Math.max(1, about.expires - about.at), "aria-label": words.ends });

  const send = async (decision: "approve" | "deny" | "report", digits: string): Promise<void> => {
    trouble.replaceChildren();
    const hash = await contentHash(request.content);
    const text = answerText(request.id, decision, digits, request.nonce, hash);
    let assertion: unknown;
    if (decision === "approve" && request.verification) {
      assertion = await confirm(request.verification_id, text);
      if (!assertion) return void trouble.append(notice("bad", h("p", null, words.verifyFailed)));
    }
    try {
      const key = account.key as CryptoKey;
      await call({ id: account.id, key }, "POST", `requests/${encodeURIComponent(request.id)}/answer`, {
        decision, number: digits, nonce: request.nonce, content_hash: hash, signature: await sign(key, text), ...(assertion ? { assertion } : {}),
      });
      if (decision === "approve") finish("ok", words.approved, words.approvedText);
      else if (decision === "deny") finish("info", words.denied, words.deniedText);
      else finish("warn", words.reported, words.reportedText);
    } catch (e) {
      if (e instanceof Refused && e.code === "number") return finish("bad", words.wrongNumber, words.wrongNumberText);
      if (e instanceof Refused && (e.code === "answered" || e.code === "expired" || e.status === 404)) return decision === "report" ? finish("warn", words.over, words.overReported) : gone();
      if (e instanceof Refused && e.code === "content") return finish("bad", words.over, words.altered);
      if (e instanceof Refused && e.code === "locked") return finish("warn", words.lockedTitle, words.lockedText);
      if (e instanceof Refused && e.status === 410) return void look(); // the watch wipes the account and says so
      trouble.append(notice("bad", h("p", null, e instanceof Error ? e.message : String(e))));
    }
  };

  const blocked = request.verification && request.verification_id === "";
  const approve = h("button.button.primary.wide", { type: "submit" }, icon("check"), words.approve);
  const form = h("form.stack", {
    novalidate: true,
    onsubmit: (e: SubmitEvent) => {
      e.preventDefault();
      const digits = input.value.trim();
      if (!/^[0-9]{2}$/.test(digits)) return number.bad(words.numberBad);
      number.bad("");
      void busy(approve, () => send("approve", digits));
    },
  });
  if (blocked) form.append(notice("warn", h("p", null, words.verifyFirst), h("a", { href: `#/account/${account.id}` }, words.verifyOpen)));
  else {
    form.append(number.row);
    if (request.verification) form.append(h("p.muted", null, words.verifyNote));
    form.append(approve);
  }
  const deny = h("button.button.wide", { type: "button", onclick: () => void busy(deny, () => send("deny", "")) }, words.deny);
  const report = h("button.button.danger-line.wide", {
    type: "button",
    onclick: () =>
      void busy(report, async () => {
        if (await ask({ title: words.reportTitle, text: words.reportText, yes: words.reportYes, no: words.cancel })) await send("report", "");
      }),
  }, words.report);

  if (past) {
    gone();
    return { title: words.request, body: [body] };
  }
  body.append(
    h("p.muted", null, words.requestLead),
    facts(about, account, several),
    h("div.left", null, bar, left),
    form, trouble, h("div.pair", null, deny, report),
  );

  const tick = (): void => {
    const rest = Math.ceil(about.expires - now() / 1000);
    left.textContent = words.requestLeft(Math.max(0, rest));
    bar.value = Math.max(0, rest);
    if (rest <= 0 && !over) gone();
  };
  timer = setInterval(tick, 500);
  tick();
  return {
    title: words.request,
    body: [body],
    leave: () => clearInterval(timer),
    changed: () => {
      // Answered on another phone, or withdrawn. While an answer of this one is under way its outcome says more.
      const sending = body.querySelector("[aria-disabled=true]") !== null;
      if (!over && !sending && linkOf(account.id) === "up" && !waiting().some((x) => x.request.id === request.id)) gone();
    },
  };
}
