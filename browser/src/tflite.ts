// What of a .tflite is checked again inside the browser: that it is one, its operators, and the places that a sparse
// tensor names. capprune has checked the whole of docs/bundle_format.md, section 5, when it wrote the page.
import rules from '../../runtime_samples/capprune_runtime/tflite/operators.json';
import {Refusal, require} from './errors';

// Python and Java read the same file.
const RULES = new Map(rules.operators.map(({code, name, versions}) => [code, {name, versions}]));

/** A table of a flatbuffer; every read outside the file throws. */
class Table {
  constructor(
    private readonly view: DataView,
    private readonly at: number,
  ) {}

  static root(view: DataView): Table {
    return new Table(view, view.getUint32(0, true));
  }

  /** Where a field lies; 0 where it is not there. */
  private field(number: number): number {
    const vtable = this.at - this.view.getInt32(this.at, true);
    const slot = 4 + 2 * number;
    if (slot + 2 > this.view.getUint16(vtable, true)) return 0;
    const offset = this.view.getUint16(vtable + slot, true);
    return offset === 0 ? 0 : this.at + offset;
  }

  int8(number: number): number {
    const at = this.field(number);
    return at === 0 ? 0 : this.view.getInt8(at);
  }

  int32(number: number): number {
    const at = this.field(number);
    return at === 0 ? 0 : this.view.getInt32(at, true);
  }

  has(number: number): boolean {
    return this.field(number) !== 0;
  }

  table(number: number): Table | null {
    const at = this.field(number);
    return at === 0 ? null : new Table(this.view, at + this.view.getUint32(at, true));
  }

  tables(number: number): Table[] {
    return this.vector(number, 4, (at) => new Table(this.view, at + this.view.getUint32(at, true)));
  }

  numbers(number: number, bytes: 1 | 2 | 4): number[] {
    return this.vector(number, bytes, (at) =>
      bytes === 4 ? this.view.getInt32(at, true) : bytes === 2 ? this.view.getUint16(at, true) : this.view.getUint8(at),
    );
  }

  private vector<T>(number: number, bytes: number, item: (at: number) => T): T[] {
    const at = this.field(number);
    if (at === 0) return [];
    const start = at + this.view.getUint32(at, true);
    const length = this.view.getUint32(start, true);
    require(start + 4 + bytes * length <= this.view.byteLength, 'a vector lies behind the end of the file');
    return Array.from({length}, (_, i) => item(start + 4 + bytes * i));
  }
}

/** Check one model file. */
export function checkTflite(data: Uint8Array, where: string): void {
  try {
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    require(String.fromCharCode(...data.subarray(4, 8)) === 'TFL3', 'this is no .tflite');
    const model = Table.root(view);
    require(model.int32(0) === 3, 'the schema version is not 3', {found: model.int32(0)});
    for (const code of model.tables(1)) checkOperator(code);
    const graphs = model.tables(2);
    require(graphs.length === 1, 'there must be exactly one subgraph', {found: graphs.length});
    for (const tensor of graphs[0].tables(0)) checkTensor(tensor);
  } catch (error) {
    if (error instanceof Refusal) throw new Refusal(error.what, {...error.facts, where: `${where}${error.facts.where ? `, ${error.facts.where}` : ''}`});
    throw new Refusal('the model file is broken', {where, found: String(error)});
  }
}

function checkOperator(code: Table): void {
  const builtin = Math.max(code.int8(0), code.int32(3));
  const rule = RULES.get(builtin);
  require(!code.has(1) && rule !== undefined, 'the model has an operator that is not of the format', {found: builtin});
  const version = code.has(2) ? code.int32(2) : 1;
  const [least, most] = rule.versions;
  require(least <= version && version <= most, `${rule.name} has an unknown version`, {expected: `${least} to ${most}`, found: version});
}

function checkTensor(tensor: Table): void {
  const shape = tensor.numbers(0, 4);
  require(shape.length <= 4 && shape.every((size) => 1 <= size && size <= 1 << 24), 'a tensor has an impossible shape');
  const sparsity = tensor.table(6);
  if (sparsity === null) return;
  const levels = sparsity.tables(2);
  const compressed = levels.filter((level) => level.int8(0) === 1);
  require(compressed.length === 1, 'a sparse tensor must have one compressed dimension');
  const at = levels.indexOf(compressed[0]);
  const block = levels.slice(at + 1).reduce((product, level) => product * level.int32(1), 1);
  const rows = levels.slice(0, at).reduce((product, level) => product * level.int32(1), 1);
  const expected = shape.reduce((product, size) => product * size, 1);
  const columns = expected / (rows * block);
  require(Number.isInteger(columns), 'the dimensions of a sparse tensor do not fit its shape');
  checkPlaces(indices(compressed[0], 2, 3), indices(compressed[0], 4, 5), rows, columns);
}

/** A vector of indices, in 32, 16 or 8 bits, with which a table names it. */
function indices(level: Table, kind: number, field: number): number[] {
  const bytes = ([4, 2, 1] as const)[level.int8(kind) - 1];
  const vector = level.table(field);
  require(bytes !== undefined && vector !== null, 'a sparse tensor has no places');
  return vector.numbers(0, bytes);
}

function checkPlaces(pointers: number[], columnOf: number[], rows: number, columns: number): void {
  require(pointers.length === rows + 1 && pointers[0] === 0, 'row pointers of a sparse tensor', {expected: rows + 1});
  require(pointers[rows] === columnOf.length, 'row pointers of a sparse tensor end elsewhere than its columns');
  for (let row = 0; row < rows; row++) {
    require(pointers[row] <= pointers[row + 1], 'a row pointer of a sparse tensor falls');
    for (let last = -1, at = pointers[row]; at < pointers[row + 1]; last = columnOf[at++]) {
      require(last < columnOf[at] && columnOf[at] < columns, 'a column index of a sparse tensor is out of range');
    }
  }
}
