// Single keys: / ? j k and g with a letter. They can be switched off in the dialog that ? opens (WCAG 2.1.4).
import { dialogFrom, find, onClick, remember } from "./page";

const places: Record<string, string> = { d: "/console", u: "/console/users", m: "/console/machines", e: "/console/events", p: "/console/policies" };

export function startKeys(): void {
  let before = "";
  let at = 0;
  onClick("[data-keys]", () => showKeys());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const target = event.target as HTMLElement;
    const typing = target.matches("input, textarea, select, [contenteditable]");
    if (event.key === "Escape" && typing && !target.closest("dialog")) {
      target.blur();
      return;
    }
    if (typing || target.closest("dialog") || remember("keys") === "off") return;
    const sequence = before === "g" && Date.now() - at < 1200;
    before = event.key;
    at = Date.now();
    const place = sequence ? places[event.key] : undefined;
    if (place !== undefined && find("#menu")) {
      location.assign(place);
    } else if (event.key === "/") {
      const field = find<HTMLInputElement>("[data-filter]") ?? find<HTMLInputElement>(".filters input");
      if (field) {
        field.focus();
        field.select();
      } else {
        find("[data-palette]")?.click();
      }
    } else if (event.key === "?") {
      showKeys();
    } else if (event.key === "j" || event.key === "k") {
      move(event.key === "j" ? 1 : -1);
    } else {
      return;
    }
    event.preventDefault();
  });
}

/** Moves the focus to the main link of the next or previous row. */
function move(by: number): void {
  const links = [...document.querySelectorAll<HTMLElement>("tbody[data-rows] tr")]
    .map((row) => find("a, summary, button", row))
    .filter((link): link is HTMLElement => link !== null);
  if (!links.length) return;
  const now = links.findIndex((link) => link.closest("tr")?.contains(document.activeElement));
  const next = links[Math.min(Math.max(now + by, 0), links.length - 1)];
  next?.focus();
  next?.closest("tr")?.scrollIntoView({ block: "nearest" });
}

function showKeys(): void {
  const dialog = dialogFrom("keys");
  const on = dialog && find<HTMLInputElement>("input[type=checkbox]", dialog);
  if (!on) return;
  on.checked = remember("keys") !== "off";
  on.addEventListener("change", () => remember("keys", on.checked ? null : "off"));
}
