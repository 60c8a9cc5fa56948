// What of an .onnx is checked again inside the browser: that it has only the fields, operators and stored tensors of the
// format. capprune has checked the whole of docs/bundle_format.md when it wrote the page.
import {Refusal, require} from './errors';

const OPSET = 20;
const IR_VERSIONS = [8, 10];
const MAX_DIMENSION = 1 << 24;
const MAX_RANK = 6;
const TYPE_BYTES: Record<number, number> = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8}; // float32, uint8, int8, int32, int64

/** The operators of runtime_samples/capprune_runtime/onnx/operators.py; a test compares the two. */
export const OPERATORS = new Set([
  'Add', 'Cast', 'Clip', 'Concat', 'ConstantOfShape', 'Conv', 'CumSum', 'DequantizeLinear', 'Div',
  'DynamicQuantizeLinear', 'Gather', 'Gelu', 'Gemm', 'LayerNormalization', 'Log', 'MatMul', 'MatMulInteger',
  'MaxPool', 'Mul', 'QuantizeLinear', 'ReduceMean', 'ReduceSum', 'Relu', 'Reshape', 'ScatterElements', 'Sigmoid',
  'Softmax', 'Split', 'Sqrt', 'Squeeze', 'Sub', 'Tanh', 'Transpose', 'Unsqueeze',
]);

const [VARINT, BYTES, FIXED32] = [0, 2, 5];
type Fields = Record<number, number>; // the wire's kind of each field that a message may have

const MODEL: Fields = {1: VARINT, 2: BYTES, 3: BYTES, 7: BYTES, 8: BYTES};
const OPSET_IMPORT: Fields = {1: BYTES, 2: VARINT};
const GRAPH: Fields = {1: BYTES, 2: BYTES, 5: BYTES, 11: BYTES, 12: BYTES};
const NODE: Fields = {1: BYTES, 2: BYTES, 3: BYTES, 4: BYTES, 5: BYTES};
const ATTRIBUTE: Fields = {1: BYTES, 2: FIXED32, 3: VARINT, 4: BYTES, 5: BYTES, 8: VARINT, 20: VARINT};
const TENSOR: Fields = {1: VARINT, 2: VARINT, 8: BYTES, 9: BYTES}; // no tensor outside the file

/** A message of the wire format; a field that is not known throws. */
class Message {
  private readonly found = new Map<number, (number | Uint8Array)[]>();

  constructor(data: Uint8Array, fields: Fields) {
    let at = 0;
    const varint = (): number => {
      let value = 0;
      for (let shift = 0; shift < 70; shift += 7) {
        require(at < data.length, 'a number is cut off');
        const byte = data[at++];
        value += (byte & 0x7f) * 2 ** shift;
        if (byte < 0x80) return value;
      }
      throw new Refusal('a number is too long');
    };
    const take = (count: number): Uint8Array => {
      require(at + count <= data.length, 'a field lies behind the end of its message');
      at += count;
      return data.subarray(at - count, at);
    };
    while (at < data.length) {
      const key = varint();
      const [number, kind] = [Math.floor(key / 8), key % 8];
      const packed = kind === BYTES && fields[number] === VARINT;
      require(fields[number] === kind || packed, 'a field is not known', {found: `field ${number}, kind ${kind}`});
      const values = this.found.get(number) ?? [];
      this.found.set(number, values);
      if (packed) {
        const end = varint() + at;
        require(end <= data.length, 'a field lies behind the end of its message');
        while (at < end) values.push(varint());
      } else {
        values.push(kind === VARINT ? varint() : take(kind === FIXED32 ? 4 : varint()));
      }
    }
  }

  number(field: number): number {
    return this.numbers(field)[0] ?? 0;
  }

  numbers(field: number): number[] {
    return (this.found.get(field) ?? []) as number[];
  }

  text(field: number): string {
    return new TextDecoder().decode(this.bytes(field));
  }

  bytes(field: number): Uint8Array {
    return ((this.found.get(field) ?? [])[0] ?? new Uint8Array()) as Uint8Array;
  }

  messages(field: number, fields: Fields): Message[] {
    return ((this.found.get(field) ?? []) as Uint8Array[]).map((part) => new Message(part, fields));
  }
}

/** Check one model file. */
export function checkOnnx(data: Uint8Array, where: string): void {
  try {
    const model = new Message(data, MODEL);
    const version = model.number(1);
    require(IR_VERSIONS[0] <= version && version <= IR_VERSIONS[1], 'the format has another version', {found: version});
    const opsets = model.messages(8, OPSET_IMPORT).map((opset) => `${opset.text(1)} ${opset.number(2)}`);
    require(opsets.join() === ` ${OPSET}`, 'the model must use the standard operators only', {expected: `opset ${OPSET}`, found: opsets.join()});
    const graph = new Message(model.bytes(7), GRAPH);
    graph.messages(5, TENSOR).forEach(checkTensor);
    graph.messages(1, NODE).forEach(checkNode);
  } catch (error) {
    if (error instanceof Refusal) throw new Refusal(error.what, {...error.facts, where: `${where}${error.facts.where ? `, ${error.facts.where}` : ''}`});
    throw new Refusal('the model file is broken', {where, found: String(error)});
  }
}

function checkNode(node: Message): void {
  const operator = node.text(4);
  require(OPERATORS.has(operator), 'the model has an operator that is not of the format', {found: operator});
  for (const attribute of node.messages(5, ATTRIBUTE)) {
    if (attribute.number(20) === 4) checkTensor(new Message(attribute.bytes(5), TENSOR));
  }
}

function checkTensor(tensor: Message): void {
  const where = tensor.text(8);
  const shape = tensor.numbers(1);
  const bytes = TYPE_BYTES[tensor.number(2)];
  require(bytes !== undefined, 'a stored tensor has a type that is not of the format', {where, found: tensor.number(2)});
  require(shape.length <= MAX_RANK && shape.every((size) => 1 <= size && size <= MAX_DIMENSION), 'a tensor has an impossible shape', {where});
  const expected = shape.reduce((product, size) => product * size, bytes);
  require(tensor.bytes(9).length === expected, 'the stored bytes do not fill the shape', {where, expected, found: tensor.bytes(9).length});
}
