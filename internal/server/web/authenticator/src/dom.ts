// Making and finding pieces of the page. Texts become text nodes: nothing that came from
// outside is ever read as markup.

import { words } from "./words";

type Child = Node | string | null | undefined | false;
type Value = string | number | boolean | null | undefined | ((e: never) => void);

/** Makes an element: h("button.primary", {type: "button", onclick: …}, "Text"). */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K | `${K}.${string}`, props?: Record<string, Value> | null, ...children: Child[]): HTMLElementTagNameMap[K] {
  const [name, ...classes] = tag.split(".") as [K, ...string[]];
  const e = document.createElement(name);
  if (classes.length) e.className = classes.join(" ");
  set(e, props);
  e.append(...children.filter((c): c is Node | string => c !== null && c !== undefined && c !== false));
  return e;
}

/** Makes a piece of a drawing. */
export function s(name: string, props: Record<string, Value>, ...children: Node[]): SVGElement {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  set(e, props);
  e.append(...children);
  return e;
}

function set(e: Element, props?: Record<string, Value> | null): void {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (typeof value === "function") e.addEventListener(name.slice(2), value as EventListener);
    else if (value === true) e.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) e.setAttribute(name, String(value));
  }
}

const paths: Record<string, string> = {
  key: "M8 13a3.500 3.500 0 1 1 0-7 3.500 3.500 0 0 1 0 7M10.600 11.800 17 18M14.200 15.300l1.600-1.600",
  codes: "M4 6h12M4 10h12M4 14h7",
  bell: "M5 14V9a5 5 0 0 1 10 0v5l1.500 1.500h-13ZM8.500 17.500h3",
  user: "M10 10.200a3.200 3.200 0 1 0 0-6.400 3.200 3.200 0 0 0 0 6.400M3.800 16.500c.8-3 3.200-4.300 6.200-4.300s5.400 1.300 6.200 4.300",
  check: "M4 10.500 8 14.500 16 6",
  bad: "M3 10a7 7 0 1 0 14 0 7 7 0 1 0-14 0M7.500 7.500l5 5M12.500 7.500l-5 5",
  warn: "M10 3.200 17.400 16H2.600L10 3.200ZM10 8v3.600M10 13.800v.1",
  info: "M3 10a7 7 0 1 0 14 0 7 7 0 1 0-14 0M10 9.200V13.500M10 6.600v.1",
  plus: "M10 4v12M4 10h12",
  next: "M8 5.500 12.500 10 8 14.500",
  x: "M5 5l10 10M15 5L5 15",
};

/** One of the icons, for the eye alone: what it means stands beside it in words. */
export const icon = (name: string): SVGElement => s("svg", { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true" }, s("path", { d: paths[name] ?? "" }));

export function find<T extends HTMLElement = HTMLElement>(selector: string): T {
  const e = document.querySelector<T>(selector);
  if (!e) throw new Error(`the page has no ${selector}`);
  return e;
}

/** Tells screen readers something that happened; at once, if it can not wait. */
export function announce(text: string, now = false): void {
  const live = find(now ? "#live-now" : "#live");
  live.textContent = "";
  // The same text twice would not be read twice.
  setTimeout(() => (live.textContent = text), 50);
}

export type Kind = "ok" | "info" | "warn" | "bad";

export const notice = (kind: Kind, ...children: Child[]): HTMLElement =>
  h(`div.notice.notice-${kind}`, null, icon(kind === "ok" ? "check" : kind), h("div.notice-body", null, ...children));

/** A notice below the header, until it is dismissed or the next page comes. */
export function tell(kind: Kind, text: string, stays = false): void {
  const n = notice(kind, h("p", null, text));
  n.dataset["stays"] = stays ? "yes" : "";
  n.append(h("button.icon-button", { type: "button", "aria-label": words.dismiss, onclick: () => n.remove() }, icon("x")));
  find("#notices").append(n);
  announce(text, kind === "bad" || kind === "warn");
}


/** Asks a question; true if it was answered with the button that does it. */
export function ask(q: { title: string; text: string; yes: string; no: string }): Promise<boolean> {
  return new Promise((resolve) => {
    const d = h("dialog", { "aria-labelledby": "question" });
    const form = h(
      "form", { method: "dialog" },
      h("h2", { id: "question" }, q.title), h("p", null, q.text),
      h("div.buttons", null, h("button.button.danger", { value: "yes" }, q.yes), h("button.button", { value: "no", autofocus: true }, q.no)),
    );
    d.append(form);
    d.addEventListener("close", () => {
      d.remove();
      resolve(d.returnValue === "yes");
    });
    document.body.append(d);
    d.showModal();
  });
}

/** Keeps a button from being pressed twice while something runs. */
export async function busy(button: HTMLButtonElement, run: () => Promise<void>): Promise<void> {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await run();
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

/** A field with its label, hint and a place for what is wrong with it. */
export function field(id: string, label: string, hint: string, input: HTMLInputElement): { row: HTMLElement; bad: (text: string) => void } {
  input.id = id;
  const about = h("p.hint", { id: `${id}-hint` }, hint);
  const fault = h("p.fault", { id: `${id}-fault`, role: "alert" });
  input.setAttribute("aria-describedby", `${id}-hint ${id}-fault`);
  const row = h("div.field", null, h("label", { for: id }, label), about, input, fault);
  return {
    row,
    bad: (text) => {
      fault.replaceChildren(...(text === "" ? [] : [icon("bad"), text]));
      input.setAttribute("aria-invalid", String(text !== ""));
      if (text !== "") input.focus();
    },
  };
}
