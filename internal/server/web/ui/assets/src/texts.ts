// Copy, save and print what a page shows; forms that are sent once.
import { announce, find, onClick } from "./page";

export function startTexts(): void {
  onClick("[data-copy]", (button) => {
    void copy(button.dataset["copy"] ?? "").then((done) => {
      if (!done) return;
      announce(document.body.dataset["copied"] ?? "");
      button.classList.add("copied");
      setTimeout(() => button.classList.remove("copied"), 1500);
    });
  });
  onClick("[data-save]", (button) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${button.dataset["text"] ?? ""}\n`], { type: "text/plain" }));
    link.download = button.dataset["save"] ?? "latchkey.txt";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
  onClick("[data-print]", () => window.print());

  // A second click must not do a thing twice.
  document.addEventListener("submit", (event) => {
    const form = event.target as HTMLFormElement;
    if (form.method !== "post" || event.defaultPrevented) return;
    if (form.dataset["sent"]) {
      event.preventDefault();
      return;
    }
    form.dataset["sent"] = "yes";
    setTimeout(() => delete form.dataset["sent"], 5000);
  });
  find("[data-focus]")?.focus();
}

async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
