// Reads QR codes where the browser can not. It is loaded when it is needed.
import decode from "../vendor/decode.js";

/** The text of the QR code in a picture, or null. */
export function read(image: ImageData): string | null {
  try {
    return decode({ width: image.width, height: image.height, data: image.data });
  } catch {
    return null; // there is none, or not to be read
  }
}
