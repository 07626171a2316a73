// The codes, with the time that each is still good.
import { announce, h, icon, notice, s } from "./dom";
import { clockAhead, now } from "./door";
import { code } from "./keys";
import { Account, Seed, allAccounts } from "./store";
import { Screen } from "./screen";
import { words } from "./words";

const length = 2 * Math.PI * 16;

export async function codes(): Promise<Screen> {
  const all = await allAccounts();
  const withCodes = all.filter((a): a is Account & { seed: Seed } => a.seed !== undefined);
  if (all.length === 0) return { title: words.welcome, body: welcome() };
  if (withCodes.length === 0) {
    return { title: words.codes, body: [h("div.empty", null, h("h2", null, words.codesNone), h("p", null, words.codesNoneText), h("a.button", { href: "#/add" }, icon("plus"), words.accountAdd))] };
  }
  const cards = withCodes.map(card);
  const tick = async (): Promise<void> => {
    await Promise.all(cards.map((c) => c.tick()));
  };
  await tick();
  const timer = setInterval(() => void tick(), 250);
  return { title: words.codes, body: [clockNotice(), h("ul.codes", null, ...cards.map((c) => c.row))], leave: () => clearInterval(timer) };
}

function welcome(): HTMLElement[] {
  return [
    h("p", null, words.welcomeText), h("p.host", null, location.host),
    h("p.muted", null, words.welcomeHow),
    h("div.buttons", null, h("a.button.primary.wide", { href: "#/add" }, icon("plus"), words.welcomeAdd)),
  ];
}

function clockNotice(): HTMLElement | null {
  const off = Math.abs(clockAhead()) / 1000;
  if (off < 20) return null;
  return notice("warn", h("p", null, words.clockOff(off < 90 ? words.seconds(Math.round(off)) : words.minutes(Math.round(off / 60)), clockAhead() > 0)));
}

function card(a: Account & { seed: Seed }): { row: HTMLElement; tick: () => Promise<void> } {
  const shown = h("span", { "aria-hidden": "true" });
  const said = h("span.sr-only");
  const arc = s("circle", { class: "ring-left", cx: 20, cy: 20, r: 16, "stroke-dasharray": length });
  const left = h("span.ring-text");
  const copied = h("span", null, words.copy);
  let current = "";
  let step = -1;
  const button = h("button.button", { type: "button", "aria-label": words.copyOf(a.user, a.server), onclick: () => void copy() }, copied);
  const row = h(
    a.seed.digits > 6 ? "li.card.code-card.long" : "li.card.code-card", null,
    h("h2", null, a.user === "" ? words.codesUnnamed : a.user, " ", h("span.muted", null, a.server)),
    h(
      "div.code-row", null,
      h("p.code", null, shown, said),
      h("div.ring", { "aria-hidden": "true" }, s("svg", { viewBox: "0 0 40 40" }, s("circle", { class: "ring-ground", cx: 20, cy: 20, r: 16 }), arc), left),
      button,
    ),
  );

  async function tick(): Promise<void> {
    const seconds = now() / 1000;
    const at = Math.floor(seconds / a.seed.period);
    const gone = seconds - at * a.seed.period;
    if (at !== step) {
      step = at;
      current = await code(a.seed, seconds);
      const half = Math.ceil(current.length / 2);
      shown.textContent = `${current.slice(0, half)} ${current.slice(half)}`;
      said.textContent = [...current].join(" ");
      shown.dataset["code"] = current;
    }
    arc.setAttribute("stroke-dashoffset", String((length * gone) / a.seed.period));
    const rest = Math.ceil(a.seed.period - gone);
    left.textContent = String(rest);
    row.classList.toggle("soon", rest <= 5);
  }

  async function copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(current);
      announce(words.copied);
      copied.textContent = words.copied;
      setTimeout(() => (copied.textContent = words.copy), 1500);
    } catch {
      announce(words.copyFailed, true);
      copied.textContent = words.copyFailed;
    }
  }
  return { row, tick };
}
