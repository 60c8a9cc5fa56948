// A model file in LiteRT.js: arrays in by name, arrays out by name.
import {CompiledModel, Tensor, loadAndCompile, loadLiteRt} from '@litertjs/core';
import {Refusal, require} from './errors';
import type {Arrays, Model, ModelEngine, Shape} from './model';
import {checkTflite} from './tflite';

/** Load the engine from a folder beside the worker. It runs on the CPU: nothing is asked of a graphics card. */
export async function loadLiteRtEngine(folder: string): Promise<ModelEngine> {
  Object.defineProperty(navigator, 'gpu', {value: undefined, configurable: true});
  const printErr = (line: string): void => {
    if (!/^(INFO|WARNING|VERBOSE):/.test(line)) console.error(line); // the engine reports its delegates as errors
  };
  (self as any).Module = {locateFile: (name: string) => folder + name, printErr};
  const warn = console.warn;
  console.warn = (...words: unknown[]) => {
    if (!String(words[0]).startsWith('Failed to create default WebGPU')) warn(...words); // the engine always looks for one
  };
  try {
    await loadLiteRt(folder);
  } finally {
    console.warn = warn;
  }
  return {check: checkTflite, open: LiteRtModel.open};
}

/** A loaded .tflite. */
class LiteRtModel implements Model {
  private readonly held = new Map<string, Tensor>();

  private constructor(
    private readonly model: CompiledModel,
    private readonly shapes: Map<string, Shape>,
    private readonly outputs: Set<string>,
  ) {}

  /** Load a verified file; `inputs` are the shapes that it must take, `outputs` the names that it must return. */
  static async open(data: Uint8Array, where: string, inputs: Map<string, Shape>, outputs: string[]): Promise<LiteRtModel> {
    let model: CompiledModel;
    try {
      model = await loadAndCompile(data, {accelerator: 'wasm'});
    } catch (error) {
      throw new Refusal('LiteRT.js does not accept a model', {where, found: String(error)});
    }
    for (const {name, shape} of model.getInputDetails()) {
      const expected = inputs.get(name)?.join('×');
      require(expected === [...shape].join('×'), 'an input of a model does not fit the manifest', {where: `${where}, ${name}`, expected});
    }
    require(model.getInputDetails().length === inputs.size, 'the inputs of a model do not fit the manifest', {where});
    const found = model.getOutputDetails().map(({name}) => name).sort().join(', ');
    require(found === [...outputs].sort().join(', '), 'the outputs of a model do not fit the manifest', {where, found});
    return new LiteRtModel(model, inputs, new Set(outputs));
  }

  hold(inputs: Arrays): void {
    for (const [name, array] of Object.entries(inputs)) {
      this.held.get(name)?.delete();
      this.held.set(name, this.tensor(name, array));
    }
  }

  async run(inputs: Record<string, Float32Array | Int32Array>): Promise<Arrays> {
    const given: Record<string, Tensor> = {};
    for (const [name, array] of Object.entries(inputs)) given[name] = this.tensor(name, array);
    let results: Record<string, Tensor>;
    try {
      results = await this.model.run({...Object.fromEntries(this.held), ...given});
    } catch (error) {
      throw new Refusal('LiteRT.js failed to run a model', {found: String(error)});
    } finally {
      for (const tensor of Object.values(given)) tensor.delete();
    }
    const arrays: Arrays = {};
    for (const [name, tensor] of Object.entries(results)) {
      if (this.outputs.has(name)) arrays[name] = (tensor.toTypedArray() as Float32Array).slice();
      tensor.delete();
    }
    return arrays;
  }

  private tensor(name: string, array: Float32Array | Int32Array): Tensor {
    return new Tensor(array, [...this.shapes.get(name)!]);
  }
}
