// Decoding streams of symbols: docs/bundle_format.md, section 8.3.
import {require} from './errors';

export const SYMBOLS = 256;
export const MOST_TABLE_BITS = 15;
export const LOW = 65536;
export const MOST_LANES = 1 << 14;
const MOST_STEPS = 1 << 17;

/** How often each symbol comes, in parts of 2^bits. */
export interface Table {
  bits: number;
  frequencies: Uint32Array;
}

/** Symbols that stand one after another and share a table. */
export interface Run {
  count: number;
  table: Table;
}

/** Decode all symbols of a stream; every state ends where the encoder began, and every word is used. */
export function decodeRuns(runs: Run[], first: Float64Array, words: Uint16Array): Uint8Array[] {
  const lanes = first.length;
  const steps = runs.reduce((sum, run) => sum + Math.ceil(run.count / lanes), 0);
  require(steps <= MOST_STEPS, 'coded symbols: too many steps for so few lanes', {expected: MOST_STEPS, found: steps});
  const states = first.slice(); // below 2^32, which a signed 32-bit number does not hold
  let position = 0;
  const decoded = runs.map(({count, table}) => {
    const slots = 1 << table.bits;
    const symbolAt = new Uint8Array(slots);
    const placeAt = new Uint16Array(slots);
    for (let symbol = 0, at = 0; symbol < SYMBOLS; symbol++) {
      for (let place = 0; place < table.frequencies[symbol]; place++, at++) {
        symbolAt[at] = symbol;
        placeAt[at] = place;
      }
    }
    const symbols = new Uint8Array(count);
    for (let i = 0, lane = 0; i < count; i++, lane = lane + 1 === lanes ? 0 : lane + 1) {
      const state = states[lane];
      const slot = state % slots;
      const symbol = symbolAt[slot];
      let x = table.frequencies[symbol] * Math.floor(state / slots) + placeAt[slot];
      if (x < LOW) {
        require(position < words.length, 'coded symbols: the words end early');
        x = x * LOW + words[position++];
      }
      states[lane] = x;
      symbols[i] = symbol;
    }
    return symbols;
  });
  require(position === words.length, 'coded symbols: words are left over', {expected: position, found: words.length});
  require(states.every((x) => x === LOW), 'coded symbols: the decoder does not end where the encoder began');
  return decoded;
}
