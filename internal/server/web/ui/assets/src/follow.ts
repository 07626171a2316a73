// A list that is followed live: new rows come over a stream of this server and are put on top.
import { announce, find, onClick } from "./page";

const most = 300;

export function startFollow(): void {
  let source: EventSource | null = null;
  let waiting = 0;
  onClick("[data-follow-toggle]", (button) => {
    const list = find("[data-follow]");
    if (!list) return;
    const label = find("[data-follow-label]", button) ?? button;
    if (source) {
      source.close();
      source = null;
    } else {
      source = new EventSource(list.dataset["follow"] ?? "");
      source.addEventListener("message", (event: MessageEvent<string>) => {
        const parts = document.createElement("template");
        parts.innerHTML = event.data;
        parts.content.querySelectorAll("tr").forEach((row) => row.classList.add("row-new"));
        waiting += parts.content.childElementCount;
        list.prepend(parts.content);
        while (list.children.length > most) list.lastElementChild?.remove();
      });
      source.addEventListener("error", () => announce(button.dataset["lost"] ?? ""));
    }
    const on = source !== null;
    button.setAttribute("aria-pressed", String(on));
    label.textContent = (on ? button.dataset["on"] : button.dataset["off"]) ?? "";
    find(".live-dot", button)?.classList.toggle("on", on);
  });
  // Not each row is read out, but how many have come.
  setInterval(() => {
    if (waiting) announce(`${waiting} ${find("[data-follow-toggle]")?.dataset["new"] ?? ""}`);
    waiting = 0;
  }, 5000);
}
