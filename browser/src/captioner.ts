// A verified bundle with its two models loaded.
import {Capz} from './capz';
import {DecoderStep, type State} from './decoder';
import {require} from './errors';
import {Familiarity, KNOWN} from './familiarity';
import {elements, parseManifest, type Manifest} from './manifest';
import type {Model, ModelEngine, Shape} from './model';
import {decodePhoto, normalise, resize} from './photo';
import {search} from './search';
import {sha256} from './sha256';
import type {CaptionDocument} from './types';
import {Vocabulary} from './vocabulary';

export class Captioner {
  private constructor(
    private readonly manifest: Manifest,
    private readonly vocabulary: Vocabulary,
    private readonly encoder: Model,
    private readonly step: DecoderStep,
    private readonly familiarity: Familiarity | null,
  ) {}

  /**
   * Verify a packed bundle and load its models.
   *
   * `expected` is the SHA-256 that the page was written with; `engineOf` gives the engine for files of an ending.
   */
  static async open(data: Uint8Array, expected: string, engineOf: (ending: string) => Promise<ModelEngine>): Promise<Captioner> {
    const found = sha256(data);
    require(found === expected, 'the bundle is not the one that this page was written with', {expected, found});
    const capz = Capz.open(data);
    const manifest = parseManifest(await capz.read('manifest.json'));
    const listed = ['manifest.json', ...Object.keys(manifest.files)].sort().join(', ');
    require(listed === capz.names.sort().join(', '), 'the files of the bundle are not those of its manifest');
    const read = async (name: string): Promise<Uint8Array> => {
      const content = await capz.read(name);
      const {sha256: digest, size_bytes: size} = manifest.files[name];
      require(content.length === size && sha256(content) === digest, 'a file is not the one that was written', {where: name});
      return content;
    };
    const {interface: step, preprocessing} = manifest;
    const vocabulary = Vocabulary.parse(await read('vocabulary.txt'), manifest.tokens, step.vocabulary);
    const familiarity = 'quality.json' in manifest.files ? Familiarity.parse(await read('quality.json'), step) : null;
    const [encoderFile, decoderFile] = [await read(manifest.encoder), await read(manifest.decoder)];
    const engine = await engineOf(manifest.encoder.split('.').pop()!);
    engine.check(encoderFile, manifest.encoder);
    engine.check(decoderFile, manifest.decoder);
    const {size} = preprocessing;
    const state = Object.entries(step.state);
    const first = state.filter(([, spec]) => spec.first === 'encode').map(([name]) => name);
    const photo = new Map<string, Shape>([['photo', [1, size, size, 3]]]);
    const encoder = await engine.open(encoderFile, manifest.encoder, photo, [...Object.keys(step.held), ...first]);
    const inputs = new Map<string, Shape>([['token', [1]]]);
    if (step.position) inputs.set('position', [1]);
    for (const [name, {shape}] of [...state, ...Object.entries(step.held)]) inputs.set(name, [1, ...shape]);
    const outputs = ['scores', ...state.map(([name]) => name), ...(step.regions === null ? [] : ['attention'])];
    const decoder = await engine.open(decoderFile, manifest.decoder, inputs, outputs);
    return new Captioner(manifest, vocabulary, encoder, new DecoderStep(decoder, step), familiarity);
  }

  /** Caption a photo file; `watch` gets the text so far after every word. */
  async caption(file: Blob, beam: number | null, watch: (text: string) => void): Promise<CaptionDocument> {
    const {preprocessing, decoding, interface: step} = this.manifest;
    const begun = performance.now();
    const square = resize(await decodePhoto(file), preprocessing.size);
    const decoded = performance.now();
    const outputs = await this.encoder.run({photo: normalise(square, preprocessing)});
    const start = this.step.lookAt(outputs);
    const encoded = performance.now();
    const pooled = this.familiarity?.pool(outputs);
    const steps: number[] = [];
    const timed = async (token: number, state: State, position: number) => {
      const before = performance.now();
      const result = await this.step.run(token, state, position);
      steps.push((performance.now() - before) * 1000);
      return result;
    };
    const width = beam ?? decoding.beam;
    const found = await search(timed, start, decoding, width, (tokens) => watch(this.vocabulary.caption(tokens)));
    const mean = found.logProbability / Math.max(1, found.tokens.length + Number(found.finished));
    const confidence = pooled === undefined ? null : this.familiarity!.confidence(pooled, mean);
    return {
      ...(confidence === null ? {} : {confidence, familiar: confidence >= KNOWN}),
      caption: this.vocabulary.caption(found.tokens),
      tokens: found.tokens,
      words: this.vocabulary.shown(found.tokens),
      log_probability: found.logProbability,
      finished: found.finished,
      warning: null,
      decode_us: (decoded - begun) * 1000,
      encode_us: (encoded - decoded) * 1000,
      step_us: steps,
      attention: step.regions === null ? null : grid(found.attention as Float32Array[]),
      square: sha256(square),
    };
  }
}

function grid(weights: Float32Array[]): CaptionDocument['attention'] {
  const side = Math.floor(Math.sqrt(weights[0]?.length ?? 0));
  return {side, weights: weights.map((one) => [...one.subarray(0, elements([side, side]))])};
}
