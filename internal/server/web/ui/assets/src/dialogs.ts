// Questions open as dialogs instead of panels; menus close like menus.
import { closeFromOutside, find, onClick } from "./page";

export function startDialogs(): void {
  document.addEventListener(
    "toggle",
    (event) => {
      const details = event.target;
      if (details instanceof HTMLDetailsElement && details.open && details.hasAttribute("data-confirm")) ask(details);
    },
    true,
  );
  document.querySelectorAll<HTMLDetailsElement>("details[data-confirm][open]").forEach(ask);
  onClick("[data-close]", (button) => {
    button.closest("dialog")?.close();
    button.closest("details")?.removeAttribute("open");
  });

  document.addEventListener("click", (event) => {
    document.querySelectorAll<HTMLDetailsElement>("details.menu[open]").forEach((menu) => {
      if (!menu.contains(event.target as Node)) menu.open = false;
    });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    document.querySelectorAll<HTMLDetailsElement>("details.menu[open]").forEach((menu) => {
      const inside = menu.contains(document.activeElement);
      menu.open = false;
      if (inside) find("summary", menu)?.focus();
    });
  });
}

/** Moves the body of the question into a dialog, and back when that closes. */
function ask(details: HTMLDetailsElement): void {
  const body = find(".confirm-body", details);
  if (!body) return;
  const dialog = document.createElement("dialog");
  dialog.className = "confirm-dialog";
  dialog.setAttribute("aria-labelledby", body.getAttribute("aria-labelledby") ?? "");
  dialog.append(body);
  document.body.append(dialog);
  dialog.addEventListener("close", () => {
    details.append(body);
    details.open = false;
    dialog.remove();
    find("summary", details)?.focus();
  });
  closeFromOutside(dialog);
  dialog.showModal();
  find<HTMLInputElement>("input:not([type=hidden]), select, textarea", body)?.focus();
}
