// Times come in UTC and are shown as this device's clock has them; the tip keeps UTC.
import { forEach } from "./page";

const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "long" });
const steps: [Intl.RelativeTimeFormatUnit, number][] = [["day", 86400], ["hour", 3600], ["minute", 60]];

function ago(at: number): string {
  const seconds = (at - Date.now()) / 1000;
  for (const [unit, size] of steps) {
    if (Math.abs(seconds) >= size) return relative.format(Math.round(seconds / size), unit);
  }
  return seconds > 0 ? "in a moment" : "just now";
}

function show(element: HTMLElement): void {
  const at = Date.parse(element.getAttribute("datetime") ?? "");
  if (Number.isNaN(at)) return;
  element.textContent = element.hasAttribute("data-ago") ? ago(at) : full.format(at);
}

export function startTimes(): void {
  forEach("time[data-local], time[data-ago]", (element) => {
    const local = full.format(Date.parse(element.getAttribute("datetime") ?? ""));
    element.title = `${local}\n${element.title}`;
    show(element);
  });
  setInterval(() => document.querySelectorAll<HTMLElement>("time[data-ago]").forEach(show), 30_000);
}
