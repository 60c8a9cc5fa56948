// The page: a photo comes in by file chooser, drop or paste; its caption appears word by word.
import {BrowserEngine, ServerEngine} from './engines';
import {Refusal} from './errors';
import {drawAttention} from './overlay';
import {resultRow} from './results';
import type {CaptionDocument, Engine, ModelFacts, Offer} from './types';

const find = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const [chooser, drop, image, overlay] = [find<HTMLInputElement>('photo'), find('drop'), find<HTMLImageElement>('image'), find<HTMLCanvasElement>('overlay')];
const [caption, words, problem, status, result] = [find('caption'), find('words'), find('problem'), find('status'), find('result')];
const [rows, beam, form] = [find('rows'), find<HTMLInputElement>('beam'), find<HTMLFormElement>('models')];

let offer: Offer;
let engine: Engine;
let photo: Blob | undefined;
let run = 0; // captions of an earlier photo or model are dropped when they come late
const done = new Map<string, {model: ModelFacts; document: CaptionDocument}>();

/** The model that is chosen. */
function chosen(): ModelFacts {
  const name = new FormData(form).get('model');
  return offer.models.find((model) => model.name === name) ?? offer.models[0];
}

function show(file: Blob): void {
  photo = file;
  done.clear();
  rows.replaceChildren();
  URL.revokeObjectURL(image.src);
  image.hidden = true;
  image.src = URL.createObjectURL(file);
  void generate();
}

async function generate(): Promise<void> {
  if (photo === undefined) return;
  const [number, model] = [++run, chosen()];
  const width = beam.value === '' ? null : Number(beam.value);
  result.hidden = false;
  result.setAttribute('aria-busy', 'true');
  problem.hidden = true;
  caption.textContent = 'Looking at the photo…';
  caption.className = 'waiting';
  status.textContent = '';
  words.replaceChildren();
  clear();
  try {
    const document = await engine.caption(model, photo, width, (text) => {
      if (number === run) caption.textContent = text;
    });
    if (number === run) finish(model, document);
  } catch (error) {
    if (number === run) fail(error);
  } finally {
    if (number === run) result.setAttribute('aria-busy', 'false');
  }
}

function finish(model: ModelFacts, document: CaptionDocument): void {
  caption.className = '';
  caption.textContent = document.caption === '' ? '(no words)' : document.caption;
  const unsure = document.unsure === true ? ' The model is not sure.' : '';
  const doubt = document.familiar === false ? ' This does not look like a photo that the model knows.' : unsure;
  find('doubt').textContent = doubt;
  status.textContent = `${document.caption}.${doubt}`;
  if (document.warning !== null) warn(document.warning);
  const {attention} = document;
  find('looked').hidden = attention === null || document.words.length === 0;
  document.words.forEach((word, index) => words.append(wordButton(word, attention?.weights[index], attention?.side)));
  done.set(model.name, {model, document});
  rows.replaceChildren(...[...done.values()].map((one) => resultRow(one.model, one.document)));
}

function fail(error: unknown): void {
  caption.textContent = '';
  find('doubt').textContent = '';
  find('looked').hidden = true;
  warn(error instanceof Refusal ? error.text : String(error));
}

function warn(text: string): void {
  problem.textContent = text;
  problem.hidden = false;
}

/** A word; where the model has attention, a button that shows where it looked. */
function wordButton(word: string, weights: number[] | undefined, side: number | undefined): HTMLElement {
  if (weights === undefined || side === undefined) {
    const plain = document.createElement('span');
    plain.textContent = word;
    return plain;
  }
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = word;
  button.setAttribute('aria-pressed', 'false');
  button.addEventListener('click', () => {
    const pressed = button.getAttribute('aria-pressed') === 'true';
    clear();
    if (pressed) return;
    button.setAttribute('aria-pressed', 'true');
    drawAttention(overlay, weights, side);
  });
  return button;
}

function clear(): void {
  overlay.hidden = true;
  for (const button of words.querySelectorAll('button')) button.setAttribute('aria-pressed', 'false');
}

function listen(): void {
  image.addEventListener('load', () => (image.hidden = false));
  chooser.addEventListener('change', () => {
    if (chooser.files?.[0]) show(chooser.files[0]);
  });
  form.addEventListener('change', () => void generate());
  form.addEventListener('submit', (event) => event.preventDefault());
  for (const name of ['dragenter', 'dragover', 'dragleave', 'drop']) {
    addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', name === 'dragenter' || name === 'dragover');
    });
  }
  const take = (data: DataTransfer | null): void => {
    const file = data?.files[0];
    if (file) show(file);
  };
  addEventListener('drop', (event) => take(event.dataTransfer));
  addEventListener('paste', (event) => take(event.clipboardData));
}

async function start(): Promise<void> {
  try {
    const response = await fetch('models.json');
    offer = await response.json();
    engine = offer.engine === 'server' ? new ServerEngine() : new BrowserEngine();
    listen();
    drop.classList.remove('off');
    chooser.disabled = false;
    // for programs that drive the page: its own captioner by the name of a bundle
    Object.assign(window, {
      capprune: {
        models: offer.models,
        caption: (name: string, file: Blob, width: number | null, watch: (text: string) => void = () => {}) =>
          engine.caption(offer.models.find((model) => model.name === name)!, file, width, watch),
      },
    });
  } catch (error) {
    warn(`this page cannot load what it needs: ${error}. Open it by HTTP, not as a file.`);
    result.hidden = false;
  }
}

void start();
