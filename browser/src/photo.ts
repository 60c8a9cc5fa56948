// From decoded RGB to what the encoder takes: docs/bundle_format.md, section 4. Equal to the bit to Python and Java.
import {Refusal, require} from './errors';
import type {Preprocessing} from './manifest';

const ONE_BITS = 15;
const HALF = 1 << (ONE_BITS - 1);
const MAX_PIXELS = 100_000_000;
export const MAX_PHOTO_BYTES = 256 * 2 ** 20;

/** Decoded pixels, three bytes each. */
export interface Rgb {
  width: number;
  height: number;
  pixels: Uint8Array;
}

/** Decode a photo file and turn it upright; transparent pixels are laid on white, colour profiles are ignored. */
export async function decodePhoto(file: Blob): Promise<Rgb> {
  require(file.size > 0, 'a photo is empty');
  require(file.size <= MAX_PHOTO_BYTES, 'a photo file is too large', {expected: `at most ${MAX_PHOTO_BYTES} bytes`, found: file.size});
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file, {colorSpaceConversion: 'none', imageOrientation: 'from-image'});
  } catch {
    throw new Refusal('a file is not a photo that this browser can read', {expected: 'JPEG, PNG, WebP, GIF or BMP'});
  }
  const {width, height} = bitmap;
  try {
    require(width * height <= MAX_PIXELS, 'a photo has too many pixels', {expected: `at most ${MAX_PIXELS}`, found: `${width}×${height}`});
    return {width, height, pixels: pixelsOf(bitmap)};
  } finally {
    bitmap.close();
  }
}

function pixelsOf(bitmap: ImageBitmap): Uint8Array {
  const {width, height} = bitmap;
  const pixels = new Uint8Array(width * height * 3);
  const rows = Math.max(1, Math.min(height, Math.floor(2 ** 22 / width))); // a band at a time: a canvas has a largest size
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext('2d', {willReadFrequently: true, alpha: false})!;
  for (let top = 0, to = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillStyle = '#fff';
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    const {data} = context.getImageData(0, 0, width, count);
    for (let from = 0; from < data.length; from += 4) {
      pixels[to++] = data[from];
      pixels[to++] = data[from + 1];
      pixels[to++] = data[from + 2];
    }
  }
  return pixels;
}

interface Output {
  first: number;
  coefficients: Int32Array;
}

/** Squash a whole photo to a square; columns first, then rows. */
export function resize({width, height, pixels}: Rgb, size: number): Uint8Array {
  const columns = plan(width, size);
  const narrow = new Uint8Array(size * height * 3);
  for (let row = 0; row < height; row++) {
    const from = row * width * 3;
    for (let out = 0; out < size; out++) squash(pixels, from, 3, columns[out], narrow, (row * size + out) * 3);
  }
  const rows = plan(height, size);
  const square = new Uint8Array(size * size * 3);
  for (let out = 0; out < size; out++) {
    for (let column = 0; column < size; column++) {
      squash(narrow, column * 3, size * 3, rows[out], square, (out * size + column) * 3);
    }
  }
  return square;
}

/** Return the encoder's input, (x - mean) / scale, each operation rounded to float32. */
export function normalise(square: Uint8Array, {mean, scale}: Preprocessing): Float32Array {
  const table = Float32Array.from({length: 768}, (_, i) => {
    const channel = i >> 8;
    const shifted = Math.fround((i & 255) - Math.fround(mean[channel]));
    return Math.fround(shifted / Math.fround(scale[channel]));
  });
  const input = new Float32Array(square.length);
  for (let i = 0; i < square.length; i += 3) {
    input[i] = table[square[i]];
    input[i + 1] = table[256 + square[i + 1]];
    input[i + 2] = table[512 + square[i + 2]];
  }
  return input;
}

function squash(samples: Uint8Array, from: number, stride: number, {first, coefficients}: Output, to: Uint8Array, at: number): void {
  let [red, green, blue] = [HALF, HALF, HALF];
  for (let i = 0, place = from + first * stride; i < coefficients.length; i++, place += stride) {
    const coefficient = coefficients[i];
    red += coefficient * samples[place];
    green += coefficient * samples[place + 1];
    blue += coefficient * samples[place + 2];
  }
  to[at] = clamped(red);
  to[at + 1] = clamped(green);
  to[at + 2] = clamped(blue);
}

function clamped(sum: number): number {
  const value = Math.floor(sum / (1 << ONE_BITS));
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

/** For each output the first input that counts and the coefficients from there on; whole numbers below 2^53. */
function plan(n: number, m: number): Output[] {
  const reach = 2 * Math.max(n, m);
  return Array.from({length: m}, (_, out) => {
    const centre = (2 * out + 1) * n;
    const lowest = Math.max(0, Math.floor((centre - reach - m) / (2 * m)));
    const highest = Math.min(n - 1, Math.floor((centre + reach) / (2 * m)));
    const weights: number[] = [];
    for (let i = lowest; i <= highest; i++) weights.push(Math.max(0, reach - Math.abs((2 * i + 1) * m - centre)));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const coefficients = Int32Array.from(weights, (w) => Math.floor((2 * w * (1 << ONE_BITS) + total) / (2 * total)));
    const sum = coefficients.reduce((all, one) => all + one, 0);
    coefficients[coefficients.indexOf(Math.max(...coefficients))] += (1 << ONE_BITS) - sum;
    let [begin, end] = [0, coefficients.length];
    while (coefficients[begin] === 0) begin++;
    while (coefficients[end - 1] === 0) end--;
    return {first: lowest + begin, coefficients: coefficients.subarray(begin, end)};
  });
}
