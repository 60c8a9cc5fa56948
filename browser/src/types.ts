/** One bundle of the page, as capprune describes it in models.json. */
export interface ModelFacts {
  name: string;
  description: string;
  sparsity: number;
  encoder: string;
  decoder: string;
  bytes: number;
  beam: number;
  attention: boolean;
  low_confidence_below: number | null;
  data: string;
  licence: string;
  file?: string;
  sha256?: string;
}

/** models.json: what the page offers. */
export interface Offer {
  engine: 'server' | 'browser';
  models: ModelFacts[];
  limits?: {upload_bytes: number; pixels: number};
  engine_bytes?: number;
}

/** A caption and what it cost. */
export interface CaptionDocument {
  caption: string;
  tokens: number[];
  words: string[];
  log_probability: number;
  finished: boolean;
  unsure?: boolean | null;
  confidence?: number;
  familiar?: boolean; // left out where the bundle cannot tell
  warning: string | null;
  decode_us: number;
  encode_us: number;
  step_us: number[];
  attention: {side: number; weights: number[][]} | null;
  square?: string;
}

/** Where captions come from. */
export interface Engine {
  /** Caption a photo; `watch` gets the text so far after every word. Throws a Refusal. */
  caption(model: ModelFacts, photo: Blob, beam: number | null, watch: (text: string) => void): Promise<CaptionDocument>;
}
