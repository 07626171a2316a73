/** What one address of the app shows. */
export interface Screen {
  title: string;
  body: (Node | string | null)[];
  leave?: () => void; // it is no longer shown
  changed?: () => void; // what waits, or the link, has changed; without it nothing is done
  focus?: HTMLElement; // in place of the title
}

/** Goes to another screen. */
export function go(hash: string): void {
  if (location.hash === hash) window.dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = hash;
}
