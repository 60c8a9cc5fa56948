// The worker that holds the engine and the models, so that the page stays responsive.
import {Captioner} from './captioner';
import {Refusal} from './errors';
import {loadLiteRtEngine} from './litert';
import type {ModelEngine} from './model';
import {loadOrtEngine} from './ort';
import type {ModelFacts} from './types';

export interface Request {
  id: number;
  model: ModelFacts;
  photo: Blob;
  beam: number | null;
}

const LOADERS: Record<string, () => Promise<ModelEngine>> = {
  tflite: () => loadLiteRtEngine('litert/'),
  onnx: () => loadOrtEngine('onnxruntime/'),
};
const engines = new Map<string, Promise<ModelEngine>>();
const captioners = new Map<string, Promise<Captioner>>();

/** Load the engine of a format once. */
function engineOf(ending: string): Promise<ModelEngine> {
  let engine = engines.get(ending);
  if (engine === undefined) engines.set(ending, (engine = LOADERS[ending]()));
  return engine;
}

async function open(model: ModelFacts): Promise<Captioner> {
  const response = await fetch(model.file!);
  if (!response.ok) throw new Refusal('the bundle cannot be loaded', {where: model.file, found: response.status});
  const data = new Uint8Array(await response.arrayBuffer());
  return Captioner.open(data, model.sha256!, engineOf);
}

async function answer({id, model, photo, beam}: Request): Promise<void> {
  try {
    let captioner = captioners.get(model.name);
    if (captioner === undefined) captioners.set(model.name, (captioner = open(model)));
    const caption = await (await captioner).caption(photo, beam, (text) => postMessage({id, text}));
    postMessage({id, caption});
  } catch (error) {
    postMessage({id, error: error instanceof Refusal ? error.text : String(error)});
  }
}

let last = Promise.resolve(); // one photo at a time: a model's inputs are its own
onmessage = ({data}: MessageEvent<Request>) => {
  last = last.then(() => answer(data));
};
