// One model file inside a packed bundle, put together again: docs/bundle_format.md, sections 8.2 and 8.4.
import {require} from './errors';
import {inflate} from './inflate';
import {cuts, readPlan, runsOf, MAX_LOW_BITS, type BytesPiece, type Piece, type PositionsPiece} from './plan';
import {LOW, MOST_LANES, decodeRuns} from './rans';

const MAX_PLAN_BYTES = 1 << 20;
const HEAD_BYTES = 24;

/** Put a file together; `words` gives the bundle's vocabulary.txt where a piece stands for it. */
export async function expandPieces(
  section: Uint8Array,
  size: number,
  words: () => Promise<Uint8Array>,
): Promise<Uint8Array> {
  const parts = readParts(section);
  const pieces = readPlan(await inflate(parts.plan, parts.planBytes, 'plan'), size);
  const sorted = sortedCuts(pieces, size);
  const uncoded = pieces.reduce((sum, one) => sum + (one.kind === 'bytes' ? one.count * missing(one) : 0), 0);
  const left = sorted.reduce((rest, [first, behind]) => rest - (behind - first), size);
  const literals = await inflate(parts.literals, left + uncoded, 'literals');
  const symbols = decodeRuns(pieces.flatMap(runsOf), parts.states, parts.words).values();
  const next = (): Uint8Array => symbols.next().value as Uint8Array;
  const lowBits = new LowBits(parts.lowBits);
  const content = new Uint8Array(size);
  let used = fillGaps(content, sorted, literals);
  for (const piece of pieces) {
    if (piece.kind === 'bytes') {
      used = fillBytes(content, piece, next, literals, used);
    } else if (piece.kind === 'floats') {
      const view = new DataView(content.buffer, piece.offset);
      next().forEach((symbol, i) => view.setFloat32(4 * i, piece.book[symbol], true));
    } else if (piece.kind === 'words') {
      const text = await words();
      require(text.length === piece.count, 'plan: the vocabulary has another length', {expected: piece.count});
      content.set(text, piece.offset);
    } else {
      fillPositions(content, piece, next(), lowBits);
    }
  }
  lowBits.requireEnd();
  return content;
}

function readParts(section: Uint8Array) {
  require(section.length >= HEAD_BYTES, 'section: it is cut off');
  const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
  const [plan, planBytes, literals, low, words, lanes] = [0, 4, 8, 12, 16, 20].map((at) => view.getUint32(at, true));
  require(planBytes <= MAX_PLAN_BYTES, 'section: the plan is too long', {expected: MAX_PLAN_BYTES, found: planBytes});
  require(1 <= lanes && lanes <= MOST_LANES, 'section: number of lanes', {expected: MOST_LANES, found: lanes});
  const total = HEAD_BYTES + plan + literals + low + 4 * lanes + 2 * words;
  require(total === section.length, 'section: its parts do not fill it', {expected: section.length, found: total});
  let at = HEAD_BYTES;
  const part = (length: number): Uint8Array => section.subarray(at, (at += length));
  const found = {planBytes, plan: part(plan), literals: part(literals), lowBits: part(low)};
  const states = Float64Array.from({length: lanes}, (_, i) => view.getUint32(at + 4 * i, true));
  at += 4 * lanes;
  require(states.every((state) => state >= LOW), 'section: a state is out of range');
  return {...found, states, words: Uint16Array.from({length: words}, (_, i) => view.getUint16(at + 2 * i, true))};
}

function missing(piece: BytesPiece): number {
  return piece.planes.filter((table) => table === null).length;
}

function sortedCuts(pieces: Piece[], size: number): [number, number][] {
  const sorted = pieces.flatMap(cuts).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let end = 0;
  for (const [first, behind] of [...sorted, [size, size]]) {
    require(first >= end, 'plan: two pieces overlap, or one lies behind the file', {where: `byte ${first}`});
    end = behind;
  }
  return sorted;
}

function fillGaps(content: Uint8Array, sorted: [number, number][], literals: Uint8Array): number {
  let used = 0;
  let at = 0;
  for (const [first, behind] of [...sorted, [content.length, content.length]]) {
    content.set(literals.subarray(used, used + first - at), at);
    used += first - at;
    at = behind;
  }
  return used;
}

function fillBytes(
  content: Uint8Array,
  piece: BytesPiece,
  next: () => Uint8Array,
  literals: Uint8Array,
  used: number,
): number {
  const width = piece.planes.length;
  piece.planes.forEach((table, plane) => {
    const bytes = table === null ? literals.subarray(used, used + piece.count) : next();
    if (table === null) used += piece.count;
    for (let i = 0; i < piece.count; i++) content[piece.offset + i * width + plane] = bytes[i];
  });
  return used;
}

function fillPositions(content: Uint8Array, piece: PositionsPiece, tokens: Uint8Array, lowBits: LowBits): void {
  const {mantissaBits: m, columns, rows} = piece;
  let place = -1;
  let row = 0;
  const pointer = (value: number): void => put(content, piece.pointers + row++ * piece.pointerBytes, value, piece.pointerBytes);
  tokens.forEach((token, i) => {
    const width = Math.max((token >> m) - 1, 0);
    require(width <= MAX_LOW_BITS, 'positions: a token is out of range');
    const leading = token >> m > 0 ? 1 << m : 0;
    place += 1 + (leading + (token % (1 << m))) * 2 ** width + lowBits.take(width);
    require(place < rows * columns, 'positions: a kept weight lies behind the last row');
    while (row * columns <= place) pointer(i);
    put(content, piece.indices + i * piece.indexBytes, place % columns, piece.indexBytes);
  });
  while (row <= rows) pointer(tokens.length);
}

function put(content: Uint8Array, at: number, value: number, bytes: number): void {
  for (let i = 0; i < bytes; i++) content[at + i] = Math.floor(value / 2 ** (8 * i)) & 0xff;
}

/** A stream of numbers of so many bits each, low bits first. */
class LowBits {
  private position = 0;

  constructor(private readonly data: Uint8Array) {}

  take(width: number): number {
    require(this.position + width <= 8 * this.data.length, 'low bits: they end early');
    let value = 0;
    for (let got = 0; got < width; ) {
      const bit = this.position % 8;
      const count = Math.min(8 - bit, width - got);
      value += ((this.data[this.position >> 3] >> bit) & ((1 << count) - 1)) * 2 ** got;
      got += count;
      this.position += count;
    }
    return value;
  }

  requireEnd(): void {
    require(8 * this.data.length - this.position < 8, 'low bits: some are left over');
    const rest = this.position % 8 === 0 ? 0 : this.data[this.position >> 3] >> this.position % 8;
    require(rest === 0, 'low bits: the last byte holds more than its bits');
  }
}
