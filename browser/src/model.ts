// What a loaded model file is to the captioner, whichever engine runs it.
export type Shape = readonly number[];
export type Arrays = Record<string, Float32Array>;

/** A loaded model file: arrays in by name, arrays out by name. */
export interface Model {
  /** Set inputs that stay as they are from run to run. */
  hold(inputs: Arrays): void;
  /** Run the model once, with an array for every input that is not held. */
  run(inputs: Record<string, Float32Array | Int32Array>): Promise<Arrays>;
}

/** An engine, and the format whose files it runs. */
export interface ModelEngine {
  /** Check what is checked again inside the browser; throws a Refusal. */
  check(data: Uint8Array, where: string): void;
  /** Load a checked file; `inputs` are the shapes that it must take, `outputs` the names that it must return. */
  open(data: Uint8Array, where: string, inputs: Map<string, Shape>, outputs: string[]): Promise<Model>;
}
