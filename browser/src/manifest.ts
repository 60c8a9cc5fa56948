// manifest.json: docs/bundle_format.md, section 2. What this runtime uses is checked; capprune checks the whole of it.
import {Refusal, require} from './errors';

export interface StateSpec {
  shape: number[];
  first: 'encode' | 'zeros';
  carry: 'replace' | 'append';
}

export interface Interface {
  vocabulary: number;
  held: Record<string, {shape: number[]; dtype: string}>;
  state: Record<string, StateSpec>;
  regions: number | null;
  position: boolean;
}

export interface Decoding {
  start: number;
  end: number;
  suppress: number[];
  max_tokens: number;
  no_repeat_ngram?: number; // 0 if left out
  beam: number;
}

export interface Preprocessing {
  size: number;
  mean: number[];
  scale: number[];
}

export interface Tokens {
  kind: 'words' | 'characters' | 'subwords' | 'radix';
  base: number;
}

export interface Manifest {
  preprocessing: Preprocessing;
  decoding: Decoding;
  tokens: Tokens;
  encoder: string;
  decoder: string;
  interface: Interface;
  files: Record<string, {sha256: string; size_bytes: number}>;
}

const MAX_DIMENSION = 65536;
const MAX_STATE_BYTES = 64 * 2 ** 20;
const KINDS = ['words', 'characters', 'subwords', 'radix'];

/** Read the content of a manifest.json. */
export function parseManifest(content: Uint8Array): Manifest {
  let tree: any;
  try {
    tree = JSON.parse(new TextDecoder('utf-8', {fatal: true, ignoreBOM: true}).decode(content));
  } catch (error) {
    throw new Refusal('manifest.json is not JSON', {found: String(error)});
  }
  require(tree?.format === 'capprune-bundle', 'a file is not the manifest of a bundle');
  require(whole(tree.schema_version, 1, 2), 'the bundle was written by a later capprune', {
    expected: 'schema 1 or 2',
    found: JSON.stringify(tree.schema_version),
  });
  const tokens: Tokens = tree.schema_version === 1 ? {kind: 'words', base: 0} : tree.tokens;
  const manifest: Manifest = {
    preprocessing: preprocessing(tree.preprocessing ?? {}, tree.schema_version),
    decoding: tree.decoding ?? {},
    tokens,
    encoder: tree.encoder?.file,
    decoder: tree.decoder?.file,
    interface: tree.schema_version === 1 ? lifted(tree.model ?? {}, tree.decoder ?? {}) : tree.decoder?.interface ?? {},
    files: tree.files ?? {},
  };
  check(manifest);
  return manifest;
}

function preprocessing(tree: any, version: number): Preprocessing {
  require(version === 1 || tree.input === 'photo', 'this page captions photos, and the bundle takes features of regions');
  require(tree.resize === 'squash-triangle-q15', 'preprocessing.resize is not known', {found: JSON.stringify(tree.resize)});
  const three = (value: unknown): any => (version === 1 ? [value, value, value] : value);
  return {size: tree.size, mean: three(tree.mean), scale: three(tree.scale)};
}

/** The interface that schema 1 means. */
function lifted(model: any, decoder: any): Interface {
  const state = Object.fromEntries(
    (decoder.state ?? []).map((name: string) => [name, {shape: [model.hidden], first: 'encode', carry: 'replace'}]),
  );
  const held = {
    keys: {shape: [model.regions, model.attention], dtype: 'float32'},
    values: {shape: [model.regions, model.context], dtype: 'float32'},
  };
  return {vocabulary: model.vocabulary, held, state, regions: model.regions, position: false};
}

function check(manifest: Manifest): void {
  const {preprocessing: photo, decoding, tokens, interface: step, files} = manifest;
  const rule = (holds: boolean, where: string): void => require(holds, 'a value of the manifest is not allowed', {where});
  rule(whole(photo.size, 8, 2048), 'preprocessing.size');
  rule(numbers(photo.mean, 0, 255), 'preprocessing.mean');
  rule(numbers(photo.scale, 0.5, 1024), 'preprocessing.scale');
  rule(whole(step.vocabulary, 5, 1_000_000), 'decoder.interface.vocabulary');
  rule(decoding.start === 1 && decoding.end === 2, 'decoding.start, decoding.end');
  rule(whole(decoding.max_tokens, 1, 1000) && whole(decoding.beam, 1, 100), 'decoding.max_tokens, decoding.beam');
  rule(decoding.no_repeat_ngram === undefined || whole(decoding.no_repeat_ngram, 1, 8), 'decoding.no_repeat_ngram');
  const ids = decoding.suppress;
  rule(Array.isArray(ids) && ids.every((id) => whole(id, 0, step.vocabulary - 1) && id !== 2), 'decoding.suppress');
  rule(KINDS.includes(tokens?.kind) && (tokens.kind !== 'radix' || whole(tokens.base, 2, 65536)), 'tokens');
  rule(step.regions === null || whole(step.regions, 1, MAX_DIMENSION), 'decoder.interface.regions');
  rule(typeof step.position === 'boolean', 'decoder.interface.position');
  checkTensors(step, decoding.max_tokens);
  const pair = [manifest.encoder, manifest.decoder].join(' ');
  rule(['encoder.tflite decoder.tflite', 'encoder.onnx decoder.onnx'].includes(pair), 'encoder.file, decoder.file');
  for (const name of [manifest.encoder, manifest.decoder, 'vocabulary.txt']) rule(name in files, `files[${name}]`);
}

function checkTensors(step: Interface, maxTokens: number): void {
  const rule = (holds: boolean, where: string): void => require(holds, 'a value of the manifest is not allowed', {where});
  let bytes = 0;
  const all = [...Object.entries(step.held ?? {}), ...Object.entries(step.state ?? {})];
  rule(all.length <= 64, 'decoder.interface.state');
  for (const [name, {shape}] of all) {
    rule(/^[a-z][a-z0-9_]{0,63}$/.test(name), `decoder.interface: ${name}`);
    const fits = Array.isArray(shape) && 1 <= shape.length && shape.length <= 3;
    rule(fits && shape.every((size) => whole(size, 1, MAX_DIMENSION)), `decoder.interface: ${name}.shape`);
    bytes += 4 * elements(shape);
  }
  rule(bytes <= 2 * MAX_STATE_BYTES, 'decoder.interface: bytes');
  for (const [name, {shape, first, carry}] of Object.entries(step.state)) {
    rule(['encode', 'zeros'].includes(first) && ['replace', 'append'].includes(carry), `decoder.interface: ${name}`);
    const room = carry === 'replace' || (first === 'zeros' && step.position && shape.length >= 2 && shape[0] >= maxTokens);
    rule(room, `decoder.interface: ${name}.carry`);
  }
}

/** How many numbers a tensor of a shape has. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function whole(value: unknown, low: number, high: number): boolean {
  return Number.isInteger(value) && low <= (value as number) && (value as number) <= high;
}

function numbers(value: unknown, low: number, high: number): boolean {
  return Array.isArray(value) && value.length === 3 && value.every((one) => typeof one === 'number' && low <= one && one <= high);
}
