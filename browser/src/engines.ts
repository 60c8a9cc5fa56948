// The two places that captions come from: a server, and a worker of this browser.
import {Refusal} from './errors';
import {isUnsure} from './familiarity';
import type {CaptionDocument, Engine, ModelFacts} from './types';

/** `POST /caption`, whose words come as server-sent events. */
export class ServerEngine implements Engine {
  async caption(model: ModelFacts, photo: Blob, beam: number | null, watch: (text: string) => void): Promise<CaptionDocument> {
    const query = new URLSearchParams({model: model.name, attention: '1'});
    if (beam !== null) query.set('beam', String(beam));
    let response: Response;
    try {
      response = await fetch(`caption?${query}`, {method: 'POST', body: photo, headers: {Accept: 'text/event-stream'}});
    } catch {
      throw new Refusal('the server does not answer');
    }
    if (!response.ok || response.body === null) throw refusal(await response.json());
    for await (const [name, data] of events(response.body)) {
      if (name === 'words') watch(data.text);
      if (name === 'caption') return data;
      if (name === 'error') throw refusal(data);
    }
    throw new Refusal('the server ended the answer early');
  }
}

function refusal(data: any): Refusal {
  return new Refusal(data.what ?? 'the server failed', {...data, hint: data.try});
}

async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<[string, any]> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = '';
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const whole = (rest + part.value).split('\n\n');
    rest = whole.pop()!;
    for (const text of whole) {
      const fields = new Map(text.split('\n').map((line) => [line.slice(0, line.indexOf(': ')), line.slice(line.indexOf(': ') + 2)]));
      yield [fields.get('event')!, JSON.parse(fields.get('data')!)];
    }
  }
}

/** The worker of a static page. */
export class BrowserEngine implements Engine {
  private readonly worker = new Worker('worker.js');
  private readonly waiting = new Map<number, (message: any) => void>();
  private number = 0;

  constructor() {
    this.worker.onmessage = ({data}) => this.waiting.get(data.id)?.(data);
    this.worker.onerror = (event) => {
      for (const tell of this.waiting.values()) tell({error: `the worker failed: ${event.message ?? 'it cannot be loaded'}`});
    };
  }

  caption(model: ModelFacts, photo: Blob, beam: number | null, watch: (text: string) => void): Promise<CaptionDocument> {
    const id = this.number++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, ({text, caption, error}) => {
        if (text !== undefined) return watch(text);
        this.waiting.delete(id);
        if (error !== undefined) return reject(new Refusal(error));
        return resolve({...caption, unsure: isUnsure(caption, model.low_confidence_below)});
      });
      this.worker.postMessage({id, model, photo, beam});
    });
  }
}
