// Finding a QR code in what the camera shows, or in a picture. No picture leaves the device.

interface Detector {
  detect(source: ImageBitmapSource): Promise<{ rawValue: string }[]>;
}
declare const BarcodeDetector: { new (o: { formats: string[] }): Detector; getSupportedFormats(): Promise<string[]> };

type Reader = (source: CanvasImageSource, width: number, height: number) => Promise<string | null>;

let reader: Promise<Reader> | undefined;

/** The browser's own reader or, where it has none, ours. It rejects if that can not be loaded. */
function load(): Promise<Reader> {
  reader ??= (async () => {
    if ("BarcodeDetector" in window && (await BarcodeDetector.getSupportedFormats().catch((): string[] => [])).includes("qr_code")) {
      const detector = new BarcodeDetector({ formats: ["qr_code"] });
      return async (source) => (await detector.detect(source as ImageBitmapSource).catch(() => []))[0]?.rawValue ?? null;
    }
    const { read } = (await import(document.body.dataset["qr"] as string)) as typeof import("./qr");
    return async (source, width, height) => {
      const image = pixels(source, width, height);
      return image && read(image);
    };
  })();
  reader.catch(() => (reader = undefined));
  return reader;
}

const canvas = document.createElement("canvas");

// Enough for a code that fills a third of the picture; more costs time.
const side = 1000;

function pixels(source: CanvasImageSource, width: number, height: number): ImageData | null {
  const scale = Math.min(1, side / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const c = canvas.getContext("2d", { willReadFrequently: true });
  if (!c || canvas.width === 0 || canvas.height === 0) return null;
  c.fillStyle = "#fff"; // behind a picture that has holes
  c.fillRect(0, 0, canvas.width, canvas.height);
  c.drawImage(source, 0, 0, canvas.width, canvas.height);
  return c.getImageData(0, 0, canvas.width, canvas.height);
}

export type Trouble = "denied" | "none" | "busy" | "decoder";

/** Shows the camera in video and calls found with each text that is read, until stop is called or found says true. */
export async function scan(video: HTMLVideoElement, found: (text: string) => boolean): Promise<{ stop: () => void } | Trouble> {
  const ready = load().catch(() => null);
  let stream: MediaStream;
  try {
    if (!navigator.mediaDevices) return "none";
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } }, audio: false });
  } catch (e) {
    const name = (e as DOMException).name;
    return name === "NotAllowedError" ? "denied" : name === "NotFoundError" || name === "OverconstrainedError" ? "none" : "busy";
  }
  let stopped = false;
  const stop = (): void => {
    stopped = true;
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  };
  const read = await ready;
  if (!read) {
    stop();
    return "decoder";
  }
  video.srcObject = stream;
  void video.play().catch(() => {});
  const look = async (): Promise<void> => {
    if (stopped) return;
    if (video.readyState >= 2 && video.videoWidth > 0) {
      const text = await read(video, video.videoWidth, video.videoHeight);
      if (!stopped && text !== null && found(text)) return stop();
    }
    setTimeout(() => void look(), 120);
  };
  void look();
  return { stop };
}

/** The text of the QR code in a file: null if there is none, "bad" if it is no picture, "decoder" if nothing can read it. */
export async function picture(file: Blob): Promise<{ text: string } | "none" | "bad" | "decoder"> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return "bad";
  }
  try {
    const read = await load().catch(() => null);
    if (!read) return "decoder";
    const text = await read(bitmap, bitmap.width, bitmap.height);
    return text === null ? "none" : { text };
  } finally {
    bitmap.close();
  }
}
