// What is used of the vendored reader.
declare module "../vendor/decode.js" {
  export default function decode(image: { width: number; height: number; data: Uint8ClampedArray }): string;
}
