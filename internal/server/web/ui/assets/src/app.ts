// What script adds to console and portal. Without it every page works: each part below only makes something quicker
// or nicer, and looks for what it needs in the page. All words come from the page, so that they stay in the catalogue.
import { startDialogs } from "./dialogs";
import { startFollow } from "./follow";
import { startKeys } from "./keys";
import { startPalette } from "./palette";
import { startPasskeys } from "./passkeys";
import { startTexts } from "./texts";
import { startTheme } from "./appearance";
import { startTimes } from "./times";

startTheme();
startTimes();
startPasskeys();
startTexts();
startDialogs();
startPalette();
startKeys();
startFollow();
