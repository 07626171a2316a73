// Runs before the first paint: the appearance that was chosen on this device, and the
// mark by which the style sheet shows what needs script.
const root = document.documentElement;
root.classList.add("js");
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
} catch {
  // No store: the system's appearance.
}
