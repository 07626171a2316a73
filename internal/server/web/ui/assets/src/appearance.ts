// Light, dark, or as the system: kept on this device. theme.ts applies it before the first paint.
import { forEach, onClick, remember } from "./page";

export function startTheme(): void {
  const show = (): void => {
    const chosen = remember("theme") ?? "";
    document.querySelectorAll<HTMLElement>("[data-theme-set]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset["themeSet"] === chosen));
    });
  };
  onClick("[data-theme-set]", (button) => {
    const theme = button.dataset["themeSet"] ?? "";
    remember("theme", theme === "" ? null : theme);
    if (theme === "") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = theme;
    show();
  });
  forEach("[data-theme-set]", show);
}
