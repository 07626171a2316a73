// What this device and browser are and can do.

const ua = navigator.userAgent;

/** iPhone or iPad; an iPad calls itself a Mac, but no Mac has a touch screen. */
export const ios = /iPhone|iPad|iPod/.test(ua) || (/Macintosh/.test(ua) && navigator.maxTouchPoints > 1);

/** The app was installed, and is not a page in a browser's window. */
export const standalone = (): boolean => matchMedia("(display-mode: standalone)").matches || (navigator as { standalone?: boolean }).standalone === true;

const systems: [RegExp, string, string][] = [
  [/iPhone/, "iPhone", "iOS"],
  [/iPad/, "iPad", "iOS"],
  [/Android/, "Android phone", "Android"],
  [/CrOS/, "Chromebook", "ChromeOS"],
  [/Windows/, "Windows computer", "Windows"],
  [/Macintosh/, "Mac", "macOS"],
  [/Linux/, "Linux computer", "Linux"],
];
const browsers: [RegExp, string][] = [
  [/Edg/, "Edge"],
  [/SamsungBrowser/, "Samsung Internet"],
  [/Firefox|FxiOS/, "Firefox"],
  [/Chrom|CriOS/, "Chrome"],
  [/Safari/, "Safari"],
];

const known = systems.find(([r]) => r.test(ua));
const system = ios && known?.[2] !== "iOS" ? (["", "iPad", "iOS"] as const) : known;

/** What people would call this device. */
export const deviceName = system?.[1] ?? "My device";
/** Its kind, as the server knows them. */
export const platform = system?.[2] === "iOS" || system?.[2] === "Android" ? system[2] : "desktop";
/** The browser and the system, in a few words. */
export const agent = `${browsers.find(([r]) => r.test(ua))?.[1] ?? "A browser"} on ${system?.[2] ?? "some system"}`;
