// Greedy and beam search: docs/bundle_format.md, section 4. The same definition as capprune_runtime/caption/search.py.
import {Refusal} from './errors';
import type {Decoding} from './manifest';

export interface StepResult<S> {
  scores: Float32Array;
  state: S;
  attention: Float32Array | null;
}

/** One call of a decoder; `state` is left as it is. */
export type Step<S> = (token: number, state: S, position: number) => Promise<StepResult<S>>;

export interface Hypothesis<S> {
  tokens: number[];
  logProbability: number;
  attention: (Float32Array | null)[];
  finished: boolean;
  state: S;
}

type Watch = (tokens: number[]) => void;

/** Search with a beam of that width; 1 is greedy search. `watch` gets the best tokens so far after every word. */
export async function search<S>(
  step: Step<S>,
  start: S,
  decoding: Decoding,
  width: number,
  watch: Watch = () => {},
): Promise<Hypothesis<S>> {
  let kept: Hypothesis<S>[] = [{tokens: [], logProbability: 0, attention: [], finished: false, state: start}];
  for (let word = 0; word < decoding.max_tokens && kept.some((one) => !one.finished); word++) {
    kept = await advance(step, kept, decoding, width);
    watch(kept[0].tokens);
  }
  const finished = kept.filter((one) => one.finished);
  return (finished.length > 0 ? finished : kept).reduce((best, one) => (one.logProbability > best.logProbability ? one : best));
}

interface Candidate {
  sum: number;
  hypothesis: number;
  token: number;
}

/** The `width` best of all continuations; ties go to the lower hypothesis, then to the lower token. */
async function advance<S>(step: Step<S>, all: Hypothesis<S>[], decoding: Decoding, width: number): Promise<Hypothesis<S>[]> {
  const candidates: Candidate[] = [];
  const results = new Map<number, {result: StepResult<S>; logs: Float64Array}>();
  for (const [index, one] of all.entries()) {
    if (one.finished) {
      candidates.push({sum: one.logProbability, hypothesis: index, token: decoding.end});
      continue;
    }
    const token = one.tokens.length > 0 ? one.tokens[one.tokens.length - 1] : decoding.start;
    const result = await step(token, one.state, one.tokens.length);
    const logs = logProbabilities(result.scores, decoding.suppress);
    block(logs, one.tokens, decoding.no_repeat_ngram ?? 0);
    results.set(index, {result, logs});
    for (const token of best(logs, width)) candidates.push({sum: logs[token] + one.logProbability, hypothesis: index, token});
  }
  candidates.sort((a, b) => b.sum - a.sum || a.hypothesis - b.hypothesis || a.token - b.token);
  return candidates.slice(0, width).map(({hypothesis, token}) => {
    const one = all[hypothesis];
    if (one.finished) return one;
    const {result, logs} = results.get(hypothesis)!;
    return continued(one, token, logs[token], result, decoding.end);
  });
}

/** Puts the tokens that would repeat a sequence of `length` tokens at minus infinity, unless no other token is left. */
function block(logs: Float64Array, tokens: number[], length: number): void {
  const last = tokens.length - length + 1;
  const repeated = new Set<number>();
  for (let start = 0; length > 0 && start + length <= tokens.length; start++) {
    let same = true;
    for (let i = 0; i < length - 1; i++) same &&= tokens[start + i] === tokens[last + i];
    if (same) repeated.add(tokens[start + length - 1]);
  }
  if (repeated.size === 0 || !logs.some((value, token) => value !== -Infinity && !repeated.has(token))) return;
  for (const token of repeated) logs[token] = -Infinity;
}

/** The tokens of the largest values, the lower one on a tie; none at minus infinity. */
function best(values: Float64Array, count: number): number[] {
  const found: number[] = [];
  for (let token = 0; token < values.length; token++) {
    const value = values[token];
    if (value === -Infinity || (found.length === count && value <= values[found[count - 1]])) continue;
    let at = found.length;
    while (at > 0 && values[found[at - 1]] < value) at--;
    found.splice(at, 0, token);
    if (found.length > count) found.pop();
  }
  return found;
}

/** The log-softmax in float64, with the suppressed tokens at minus infinity. */
function logProbabilities(scores: Float32Array, suppress: number[]): Float64Array {
  const logs = Float64Array.from(scores);
  for (const token of suppress) logs[token] = -Infinity;
  let largest = -Infinity;
  for (const value of logs) {
    if (Number.isNaN(value)) largest = NaN;
    if (value > largest) largest = value;
  }
  if (!Number.isFinite(largest)) throw new Refusal('the decoder gave scores that are not finite numbers');
  let sum = 0;
  for (let i = 0; i < logs.length; i++) sum += Math.exp((logs[i] -= largest));
  const log = Math.log(sum);
  for (let i = 0; i < logs.length; i++) logs[i] -= log;
  return logs;
}

function continued<S>(one: Hypothesis<S>, token: number, log: number, result: StepResult<S>, end: number): Hypothesis<S> {
  const logProbability = one.logProbability + log;
  if (token === end) return {...one, logProbability, finished: true, state: result.state};
  return {
    tokens: [...one.tokens, token],
    logProbability,
    attention: [...one.attention, result.attention],
    finished: false,
    state: result.state,
  };
}
