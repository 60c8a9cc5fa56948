// Whether a photo looks like those that a bundle's limits were chosen on: docs/bundle_format.md, section 4.
import {Refusal, require} from './errors';
import {elements, type Interface} from './manifest';
import type {Arrays} from './model';

const KEY = 'familiarity';
const MAX_WEIGHTS = 4096;
const LARGEST = 1e6;
const STEEPEST = 30;
export const KNOWN = 0.5; // photos of a lower confidence are not familiar
const SURE = 0.7; // captions of photos of a lower confidence are marked as unsure

export class Familiarity {
  private constructor(
    private readonly step: Interface,
    private readonly weights: number[],
    private readonly logProbability: number,
    private readonly offset: number,
  ) {}

  /** The limits in a quality.json; null where it has none. A file without the quoted key is not parsed. */
  static parse(quality: Uint8Array, step: Interface): Familiarity | null {
    const text = new TextDecoder().decode(quality);
    if (!text.includes(`"${KEY}"`)) return null;
    let document: any;
    try {
      document = JSON.parse(text);
    } catch (error) {
      throw new Refusal('quality.json is not JSON', {found: String(error)});
    }
    const tree = document?.[KEY] ?? null;
    if (tree === null) return null;
    const most = Math.min(MAX_WEIGHTS, outputs(step).reduce((sum, [, shape]) => sum + shape[shape.length - 1], 0));
    const {weights, log_probability: logProbability, offset} = tree;
    const fits = Array.isArray(weights) && 1 <= weights.length && weights.length <= most;
    require(fits, 'a value of the familiarity is not allowed', {where: `${KEY}.weights`, expected: `1 to ${most} numbers`});
    for (const one of [...weights, logProbability, offset]) {
      const allowed = typeof one === 'number' && Math.abs(one) <= LARGEST;
      require(allowed, 'a value of the familiarity is not allowed', {where: KEY, expected: 'a number', found: String(one)});
    }
    return new Familiarity(step, weights, logProbability, offset);
  }

  /** The mean over each run of neighbouring channels, after the mean over all other dimensions. */
  pool(encoded: Arrays): number[] {
    const channels = outputs(this.step).flatMap(([name, shape]) => means(encoded[name], shape));
    const count = this.weights.length;
    const [sums, counts] = [new Array<number>(count).fill(0), new Array<number>(count).fill(0)];
    channels.forEach((value, place) => {
      const run = Math.floor((place * count) / channels.length);
      sums[run] += value;
      counts[run]++;
    });
    return sums.map((sum, run) => sum / counts[run]);
  }

  /** Confidence, 0 to 1, that the photo is of the known kind and its caption likely. */
  confidence(pooled: number[], meanLogProbability: number): number {
    let total = this.offset + this.logProbability * meanLogProbability;
    this.weights.forEach((weight, place) => (total += weight * pooled[place]));
    require(Number.isFinite(total), 'the encoder returned numbers that are not finite', {found: total});
    return 1 / (1 + Math.exp(-Math.min(Math.max(total, -STEEPEST), STEEPEST)));
  }
}

/** Whether a caption may well be wrong: unlikely words, or a hardly known photo; null where the bundle cannot tell. */
export function isUnsure(
  caption: {log_probability: number; tokens: number[]; finished: boolean; confidence?: number},
  lowBelow: number | null,
): boolean | null {
  if (lowBelow === null && caption.confidence === undefined) return null;
  const mean = caption.log_probability / Math.max(1, caption.tokens.length + Number(caption.finished));
  return (lowBelow !== null && mean < lowBelow) || (caption.confidence ?? 1) < SURE;
}

/** The outputs of `encode` with their shapes, in the order of their names. */
function outputs(step: Interface): [string, number[]][] {
  const first = Object.entries(step.state).filter(([, spec]) => spec.first === 'encode');
  const all = [...Object.entries(step.held), ...first].map(([name, {shape}]): [string, number[]] => [name, shape]);
  return all.sort(([one], [other]) => (one < other ? -1 : 1));
}

function means(values: ArrayLike<number>, shape: number[]): number[] {
  const channels = shape[shape.length - 1];
  const sums = new Array<number>(channels).fill(0);
  for (let place = 0; place < values.length; place++) sums[place % channels] += values[place];
  return sums.map((sum) => sum / (elements(shape) / channels));
}
