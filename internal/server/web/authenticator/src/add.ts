// Adding an account: by camera, picture or link; then what is about to be added.
import { busy, field, h, icon, notice, tell } from "./dom";
import { Refused, call } from "./door";
import { keepSeed, makeDeviceKey, sign } from "./keys";
import { Read, Wanted, otpauth, read } from "./link";
import { agent, deviceName, ios, platform, standalone } from "./platform";
import { Trouble, picture, scan } from "./scan";
import { Screen, go } from "./screen";
import { Account, dropAccount, putAccount } from "./store";
import { watch } from "./watch";
import { words } from "./words";

// What was read and waits to be confirmed. It is kept in memory alone.
let code = "";
let wanted: Wanted | null = null;

/** The app was opened by a link that holds an enrolment code. */
export function offer(enrolment: string): void {
  code = enrolment;
}

const mustInstall = (): boolean => ios && !standalone();

export function add(): Screen {
  if (mustInstall()) return install();
  const result = h("div", { role: "alert" });
  const say = (...nodes: Node[]): void => result.replaceChildren(notice("bad", ...nodes));
  let camera: { stop: () => void } | undefined;
  let left = false;

  const take = (text: string): boolean => {
    const r: Read = read(text, location.origin);
    if (r.kind === "nothing") {
      say(h("p", null, words.addNothing));
      return false;
    }
    if (r.kind === "elsewhere") {
      const host = new URL(r.origin).host;
      say(h("p", null, words.addElsewhere(host)), h("p", null, h("a", { href: `${r.origin}/authenticator/`, rel: "noreferrer" }, words.addElsewhereOpen(host))));
      return false;
    }
    if (r.kind === "enrol") {
      code = r.code;
      go("#/add/device");
    } else {
      wanted = r.wanted;
      go("#/add/codes");
    }
    return true;
  };

  const video = h("video", { muted: true, playsinline: true, "aria-label": words.addLooking });
  const view = h("div.camera", { hidden: true }, video, h("p", { role: "status" }, words.addLooking));
  const start = h("button.button.primary.wide", { type: "button", onclick: () => void busy(start, openCamera) }, icon("codes"), words.addCamera);
  const stop = h("button.button.wide", { type: "button", hidden: true, onclick: () => closeCamera() }, words.addCameraStop);
  const troubles: Record<Trouble, string> = { denied: words.addCameraDenied, none: words.addCameraNone, busy: words.addCameraBusy, decoder: words.addDecoderMissing };
  const closeCamera = (): void => {
    camera?.stop();
    camera = undefined;
    view.hidden = stop.hidden = true;
    start.hidden = false;
  };
  const openCamera = async (): Promise<void> => {
    result.replaceChildren();
    view.hidden = stop.hidden = false;
    start.hidden = true;
    const got = await scan(video, take);
    if (typeof got === "string") {
      closeCamera();
      say(h("p", null, troubles[got]));
      return;
    }
    camera = got;
    if (left) got.stop();
  };

  const file = h("input", { type: "file", accept: "image/*" });
  const picked = field("picture", words.addPicture, words.addPictureText, file);
  file.addEventListener("change", () => {
    const chosen = file.files?.[0];
    if (!chosen) return;
    picked.bad("");
    void picture(chosen).then((got) => {
      file.value = "";
      if (typeof got === "object") take(got.text);
      else picked.bad(got === "none" ? words.addPictureNone : got === "bad" ? words.addPictureBad : words.addDecoderMissing);
    });
  });

  const text = h("input", { type: "text", autocomplete: "off", autocapitalize: "none", spellcheck: "false", name: "link" });
  const link = field("link", words.addLink, words.addLinkText, text);
  const paste = h("form.stack", {
    novalidate: true,
    onsubmit: (e: SubmitEvent) => {
      e.preventDefault();
      link.bad("");
      if (read(text.value, location.origin).kind === "nothing") return link.bad(words.addNothing);
      take(text.value);
    },
  }, link.row, h("button.button.wide", { type: "submit" }, words.addLinkGo));

  return {
    title: words.add,
    body: [
      h("p", null, words.addLead(location.host)), result,
      h("section.card.stack", { "aria-labelledby": "scan" }, h("h2", { id: "scan" }, words.addScan), h("p.muted", null, words.addScanText), view, start, stop),
      h("div.card.stack", null, picked.row), h("div.card.stack", null, paste),
    ],
    leave: () => {
      left = true;
      closeCamera();
    },
  };
}

function install(): Screen {
  return { title: words.installTitle, body: [h("p", null, words.installText), h("ol.steps.card", null, ...words.installSteps.map((t) => h("li", null, t)))] };
}

interface Enrolled {
  device: string;
  user: string;
  server: string;
  name: string;
  totp: string;
  vapid: string;
}

/** The device is about to be enrolled with the code that was read. */
export function addDevice(): Screen {
  if (mustInstall()) return install();
  if (code === "") {
    go("#/add");
    return { title: words.add, body: [] };
  }
  const input = h("input", { type: "text", autocomplete: "off", maxlength: 64, value: deviceName, name: "device" });
  const name = field("device", words.enrolName, words.enrolNameHint, input);
  const trouble = h("div", { role: "alert" });
  const button = h("button.button.primary.wide", { type: "submit" }, words.enrolGo);
  const form = h("form.stack", {
    novalidate: true,
    onsubmit: (e: SubmitEvent) => {
      e.preventDefault();
      const called = input.value.trim();
      if (called === "") return name.bad(words.enrolNameBad);
      name.bad("");
      trouble.replaceChildren();
      void busy(button, async () => {
        try {
          const account = await enrol(code, called);
          code = "";
          tell("ok", words.enrolDone(account.user), true);
          await watch();
          go(`#/account/${account.id}`);
        } catch (fault) {
          trouble.replaceChildren(notice("bad", h("p", null, fault instanceof Error ? fault.message : String(fault))));
          if (fault instanceof Refused && fault.status !== 429) trouble.append(h("p", null, h("a", { href: "#/add" }, words.add)));
        }
      });
    },
  }, name.row, trouble, button);
  return { title: words.enrol, body: [h("p", null, words.enrolLead(location.host)), h("p.muted", null, words.enrolKeys), form] };
}

async function enrol(code: string, name: string): Promise<Account> {
  const { key, spki } = await makeDeviceKey();
  const draft: Account = { id: "new", kind: "device", server: "", user: "", name, added: Date.now(), key };
  // A code is good once: whether the key can be kept is tried before it is spent.
  try {
    await putAccount(draft);
    await dropAccount(draft.id);
    await navigator.storage?.persist?.();
  } catch {
    throw new Error(words.enrolStore);
  }
  const got = await call<Enrolled>(null, "POST", "enrol", {
    code, public_key: spki, proof: await sign(key, ["latchkey-enrol/1", code, spki].join("\n")), name, platform, standalone: standalone(), agent,
  });
  const account: Account = { ...draft, id: got.device, server: got.server, user: got.user, name: got.name || name, vapid: got.vapid };
  const codes = got.totp === "" ? null : otpauth(got.totp);
  if (codes) account.seed = await keepSeed(codes);
  await putAccount(account);
  return account;
}

/** Codes alone, of an otpauth QR code. */
export function addCodes(): Screen {
  const w = wanted;
  if (!w) {
    go("#/add");
    return { title: words.add, body: [] };
  }
  const trouble = h("div", { role: "alert" });
  const button = h("button.button.primary.wide", {
    type: "button",
    onclick: () =>
      void busy(button, async () => {
        try {
          const id = `codes-${crypto.randomUUID()}`;
          await putAccount({ id, kind: "codes", server: w.issuer, user: w.user, name: deviceName, added: Date.now(), seed: await keepSeed(w) });
          await navigator.storage?.persist?.();
          wanted = null;
          tell("ok", words.enrolDone(w.user || words.codesUnnamed), true);
          go("#/codes");
        } catch {
          trouble.replaceChildren(notice("bad", h("p", null, words.enrolStore)));
        }
      }),
  }, words.codesGo);
  return { title: words.codesEnrol, body: [h("p", null, words.codesEnrolLead(w.user || words.codesUnnamed, w.issuer)), h("p.muted", null, words.codesEnrolNote), trouble, button] };
}
