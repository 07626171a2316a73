// Small things that the other parts share.

/** Finds one element of the kind, or null. */
export function find<T extends HTMLElement = HTMLElement>(selector: string, within: ParentNode = document): T | null {
  return within.querySelector<T>(selector);
}

/** Tells screen readers something that happened. */
export function announce(text: string): void {
  const live = find("#live");
  if (!live) return;
  live.textContent = "";
  // The same text twice would not be read twice.
  setTimeout(() => (live.textContent = text), 50);
}

/** Calls fn when an element that fits is clicked, wherever it came from and whenever it came. */
export function onClick(selector: string, fn: (target: HTMLElement, event: MouseEvent) => void): void {
  document.addEventListener("click", (event) => {
    const target = (event.target as Element | null)?.closest<HTMLElement>(selector);
    if (target) fn(target, event);
  });
}

/** Calls fn for every element that fits, now and whenever some are added. */
export function forEach(selector: string, fn: (element: HTMLElement) => void): void {
  document.querySelectorAll<HTMLElement>(selector).forEach(fn);
  new MutationObserver((changes) => {
    for (const change of changes) {
      for (const node of change.addedNodes) {
        if (!(node instanceof HTMLElement)) continue;
        if (node.matches(selector)) fn(node);
        node.querySelectorAll<HTMLElement>(selector).forEach(fn);
      }
    }
  }).observe(document.body, { childList: true, subtree: true });
}

/** A setting of this device; a browser without a store forgets it. */
export function remember(name: string, value?: string | null): string | null {
  try {
    if (value === null) localStorage.removeItem(name);
    else if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Makes a dialog from a template of the page; null if the page has none. It is gone when it closes. */
export function dialogFrom(template: string): HTMLDialogElement | null {
  const source = find<HTMLTemplateElement>(`template#${template}`);
  const dialog = source?.content.firstElementChild?.cloneNode(true);
  if (!(dialog instanceof HTMLDialogElement) || document.querySelector("dialog[open]")) return null;
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  closeFromOutside(dialog);
  dialog.showModal();
  return dialog;
}

/** A click beside the dialog closes it. */
export function closeFromOutside(dialog: HTMLDialogElement): void {
  dialog.addEventListener("mousedown", (event) => {
    if (event.target !== dialog) return;
    const box = dialog.getBoundingClientRect();
    const inside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
    if (!inside) dialog.close();
  });
}
