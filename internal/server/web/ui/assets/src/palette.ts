// Ctrl+K: users, machines and pages by their first letters.
import { dialogFrom, find, onClick } from "./page";

export function startPalette(): void {
  onClick("[data-palette]", (_, event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (open()) event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    if (open()) event.preventDefault();
  });
}

function open(): boolean {
  const dialog = dialogFrom("palette");
  const input = dialog && find<HTMLInputElement>("input", dialog);
  const list = dialog && find("[role=listbox]", dialog);
  if (!input || !list) return false;

  const options = (): HTMLAnchorElement[] => [...list.querySelectorAll<HTMLAnchorElement>("[role=option]")];
  let chosen = 0;
  const choose = (n: number): void => {
    const all = options();
    chosen = all.length ? (n + all.length) % all.length : 0;
    all.forEach((option, i) => {
      option.setAttribute("aria-selected", String(i === chosen));
      if (i === chosen) {
        input.setAttribute("aria-activedescendant", option.id);
        option.scrollIntoView({ block: "nearest" });
      }
    });
    if (!all.length) input.removeAttribute("aria-activedescendant");
  };

  let asked = 0;
  let timer = 0;
  const ask = async (): Promise<void> => {
    const mine = ++asked;
    const query = new URLSearchParams({ part: "1", q: input.value.trim() });
    try {
      const answer = await fetch(`/console/search?${query}`, { headers: { "HX-Request": "true" } });
      const text = await answer.text();
      if (mine !== asked || !answer.ok) return;
      list.innerHTML = text;
      choose(0);
    } catch {
      // The list stays as it is.
    }
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = window.setTimeout(() => void ask(), 120);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") choose(chosen + 1);
    else if (event.key === "ArrowUp") choose(chosen - 1);
    else if (event.key === "Enter") options()[chosen]?.click();
    else return;
    event.preventDefault();
  });
  void ask();
  return true;
}
