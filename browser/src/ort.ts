// A model file in onnxruntime-web: arrays in by name, arrays out by name.
import * as ort from 'onnxruntime-web/wasm';
import {Refusal, require} from './errors';
import type {Arrays, Model, ModelEngine, Shape} from './model';
import {checkOnnx} from './onnx';

const NEXT = 'next_'; // before an output whose name is also an input's: names of an ONNX graph are one space

/** Load the engine from a folder beside the worker: one thread of the CPU. */
export async function loadOrtEngine(folder: string): Promise<ModelEngine> {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = {wasm: new URL(`${folder}ort-wasm-simd-threaded.wasm`, self.location.href).href};
  ort.env.logLevel = 'error';
  return {check: checkOnnx, open: OrtModel.open};
}

/** A loaded .onnx. */
class OrtModel implements Model {
  private readonly held: Record<string, ort.Tensor> = {};

  private constructor(
    private readonly session: ort.InferenceSession,
    private readonly shapes: Map<string, Shape>,
    private readonly outputs: Map<string, string>, // the graph's name of each output
  ) {}

  static async open(data: Uint8Array, where: string, inputs: Map<string, Shape>, outputs: string[]): Promise<OrtModel> {
    let session: ort.InferenceSession;
    try {
      session = await ort.InferenceSession.create(data, {executionProviders: ['wasm'], intraOpNumThreads: 1});
    } catch (error) {
      throw new Refusal('onnxruntime-web does not accept a model', {where, found: String(error)});
    }
    for (const value of session.inputMetadata) {
      const expected = inputs.get(value.name);
      const found = value.isTensor ? value.shape : [];
      const fits = expected?.length === found.length && found.every((size, at) => size === expected[at] || (at === 0 && typeof size === 'string'));
      require(fits, 'an input of a model does not fit the manifest', {where: `${where}, ${value.name}`, expected: expected?.join('×')});
    }
    require(session.inputNames.length === inputs.size, 'the inputs of a model do not fit the manifest', {where});
    const names = new Map(outputs.map((name) => [name, inputs.has(name) ? NEXT + name : name]));
    const found = [...session.outputNames].sort().join(', ');
    require(found === [...names.values()].sort().join(', '), 'the outputs of a model do not fit the manifest', {where, found});
    return new OrtModel(session, inputs, names);
  }

  hold(inputs: Arrays): void {
    for (const [name, array] of Object.entries(inputs)) this.held[name] = this.tensor(name, array);
  }

  async run(inputs: Record<string, Float32Array | Int32Array>): Promise<Arrays> {
    const given = Object.entries(inputs).map(([name, array]) => [name, this.tensor(name, array)] as const);
    let results: ort.InferenceSession.OnnxValueMapType;
    try {
      results = await this.session.run({...this.held, ...Object.fromEntries(given)});
    } catch (error) {
      throw new Refusal('onnxruntime-web failed to run a model', {found: String(error)});
    }
    return Object.fromEntries([...this.outputs].map(([name, own]) => [name, results[own].data as Float32Array]));
  }

  private tensor(name: string, array: Float32Array | Int32Array): ort.Tensor {
    const shape = this.shapes.get(name)!;
    return array instanceof Int32Array ? new ort.Tensor('int32', array, shape) : new ort.Tensor('float32', array, shape);
  }
}
