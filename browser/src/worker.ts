// The worker that holds the engine and the models, so that the page stays responsive.
import {Captioner} from './captioner';
import {Refusal} from './errors';
import {loadEngine} from './litert';
import type {ModelFacts} from './types';

export interface Request {
  id: number;
  model: ModelFacts;
  photo: Blob;
  beam: number | null;
}

let engine: Promise<void> | undefined;
const captioners = new Map<string, Promise<Captioner>>();

async function open(model: ModelFacts): Promise<Captioner> {
  const response = await fetch(model.file!);
  if (!response.ok) throw new Refusal('the bundle cannot be loaded', {where: model.file, found: response.status});
  const data = new Uint8Array(await response.arrayBuffer());
  await (engine ??= loadEngine('litert/'));
  return Captioner.open(data, model.sha256!);
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
