// The plan of a model file inside a packed bundle: docs/bundle_format.md, section 8.2.
import {require} from './errors';
import {MOST_TABLE_BITS, SYMBOLS, type Run, type Table} from './rans';

const MAX_PIECES = 4096;
const MAX_KEPT = 2 ** 24;
const MAX_PLACES = 2 ** 40;
export const MAX_LOW_BITS = 30;
const ZERO_SYMBOL = 128;

export interface BytesPiece {kind: 'bytes'; offset: number; count: number; planes: (Table | null)[]}
export interface FloatPiece {kind: 'floats'; offset: number; count: number; book: Float32Array; table: Table}
export interface WordsPiece {kind: 'words'; offset: number; count: number}
export interface PositionsPiece {
  kind: 'positions';
  pointers: number;
  pointerBytes: number;
  indices: number;
  indexBytes: number;
  rows: number;
  columns: number;
  kept: number;
  mantissaBits: number;
  table: Table;
}
export type Piece = BytesPiece | FloatPiece | WordsPiece | PositionsPiece;

/** The parts of the file that a piece gives back, as [first byte, byte behind]. */
export function cuts(piece: Piece): [number, number][] {
  switch (piece.kind) {
    case 'bytes':
      return [[piece.offset, piece.offset + piece.count * piece.planes.length]];
    case 'floats':
      return [[piece.offset, piece.offset + 4 * piece.count]];
    case 'words':
      return [[piece.offset, piece.offset + piece.count]];
    case 'positions':
      return [
        [piece.pointers, piece.pointers + (piece.rows + 1) * piece.pointerBytes],
        [piece.indices, piece.indices + piece.kept * piece.indexBytes],
      ];
  }
}

/** What stands for a piece in the stream of symbols. */
export function runsOf(piece: Piece): Run[] {
  if (piece.kind === 'bytes') {
    return piece.planes.filter((table) => table !== null).map((table) => ({count: piece.count, table}));
  }
  if (piece.kind === 'words') return [];
  return [{count: piece.kind === 'positions' ? piece.kept : piece.count, table: piece.table}];
}

/** What the pieces of a file of `size` bytes are. */
export function readPlan(plan: Uint8Array, size: number): Piece[] {
  const fields = new Fields(plan);
  const pieces: Piece[] = [];
  for (let left = fields.number(0, MAX_PIECES); left > 0; left--) pieces.push(readPiece(fields, size));
  require(fields.atEnd, 'plan: bytes follow the last piece');
  return pieces;
}

class Fields {
  private position = 0;

  constructor(private readonly plan: Uint8Array) {}

  get atEnd(): boolean {
    return this.position === this.plan.length;
  }

  take(count: number): Uint8Array {
    require(this.position + count <= this.plan.length, 'plan: it is cut off');
    this.position += count;
    return this.plan.slice(this.position - count, this.position);
  }

  /** 7 bits a byte, low ones first; the top bit says that more follow; at most 5 bytes. */
  number(low: number, high: number): number {
    let value = 0;
    let byte = 0x80;
    for (let shift = 0; byte >= 0x80; shift += 7) {
      require(shift < 35, 'plan: a number is too long');
      byte = this.take(1)[0];
      value += (byte & 0x7f) * 2 ** shift;
    }
    require(low <= value && value <= high, 'plan: a number is out of range', {expected: `${low} to ${high}`, found: value});
    return value;
  }

  floats(count: number): Float32Array {
    const view = new DataView(this.take(4 * count).buffer);
    return Float32Array.from({length: count}, (_, i) => view.getFloat32(4 * i, true));
  }

  table(symbols = SYMBOLS): Table {
    const found = this.tableOrNull(symbols);
    require(found !== null, 'plan: a table is missing');
    return found;
  }

  tableOrNull(symbols = SYMBOLS): Table | null {
    const bits = this.number(0, MOST_TABLE_BITS);
    if (bits === 0) return null;
    const first = this.number(0, symbols - 1);
    const count = this.number(1, symbols - first);
    const frequencies = new Uint32Array(SYMBOLS);
    let total = 0;
    for (let i = 0; i < count; i++) total += frequencies[first + i] = this.number(0, 1 << bits);
    require(total === 1 << bits, 'plan: a table is not normalised', {expected: 1 << bits, found: total});
    return {bits, frequencies};
  }
}

function readPiece(fields: Fields, size: number): Piece {
  const kind = fields.number(0, 4);
  if (kind === 3) return readPositions(fields, size);
  const offset = fields.number(0, size);
  const count = fields.number(1, Math.max(size, 1));
  if (kind === 4) return {kind: 'words', offset, count};
  if (kind === 0) {
    const width = fields.number(1, 4);
    return {kind: 'bytes', offset, count, planes: Array.from({length: width}, () => fields.tableOrNull())};
  }
  const book =
    kind === 1
      ? scaled(fields.floats(1)[0])
      : fields.floats(fields.number(1, SYMBOLS));
  return {kind: 'floats', offset, count, book, table: fields.table(book.length)};
}

function scaled(scale: number): Float32Array {
  return Float32Array.from({length: SYMBOLS}, (_, symbol) => scale * (symbol - ZERO_SYMBOL));
}

function readPositions(fields: Fields, size: number): PositionsPiece {
  const pointers = fields.number(0, size);
  const pointerBytes = fields.number(1, 4);
  const indices = fields.number(0, size);
  const indexBytes = fields.number(1, 4);
  const rows = fields.number(1, MAX_KEPT);
  const columns = fields.number(1, 2 ** 32);
  const kept = fields.number(1, MAX_KEPT);
  const mantissaBits = fields.number(0, 7);
  const table = fields.table(Math.min(SYMBOLS, (MAX_LOW_BITS + 2) << mantissaBits));
  const fits = kept < 2 ** (8 * pointerBytes) && columns <= 2 ** (8 * indexBytes) && rows * columns <= MAX_PLACES;
  require(fits && pointerBytes !== 3 && indexBytes !== 3, 'plan: positions do not fit their numbers');
  return {kind: 'positions', pointers, pointerBytes, indices, indexBytes, rows, columns, kept, mantissaBits, table};
}
