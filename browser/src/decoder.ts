// A decoder's `step` behind its interface, as capprune_runtime/caption/decoder.py has it.
import type {Arrays, Model} from './model';
import {elements, type Interface} from './manifest';
import type {StepResult} from './search';

/** What a hypothesis carries from word to word; hypotheses share the appended slices that they have in common. */
export interface State {
  replaced: Arrays;
  appended: Arrays[];
}

/** The `step` of a loaded decoder. */
export class DecoderStep {
  private readonly replaced: string[];
  private readonly appended: string[];
  private caches: Arrays = {};
  private written: Arrays[] = [];

  constructor(
    private readonly model: Model,
    private readonly step: Interface,
  ) {
    const names = Object.keys(step.state);
    this.replaced = names.filter((name) => step.state[name].carry === 'replace');
    this.appended = names.filter((name) => step.state[name].carry === 'append');
    for (const name of this.appended) this.caches[name] = this.zeros(name);
  }

  /** Set what stays the same for all words of a photo, and return the state before the first word. */
  lookAt(encoded: Arrays): State {
    this.model.hold(Object.fromEntries(Object.keys(this.step.held).map((name) => [name, encoded[name]])));
    const first = (name: string): Float32Array =>
      this.step.state[name].first === 'encode' ? encoded[name] : this.zeros(name);
    return {replaced: Object.fromEntries(this.replaced.map((name) => [name, first(name)])), appended: []};
  }

  /** Run the step once, on the photo that was looked at last. */
  async run(token: number, state: State, position: number): Promise<StepResult<State>> {
    this.write(state.appended);
    const outputs = await this.model.run({
      token: Int32Array.of(token),
      ...(this.step.position ? {position: Int32Array.of(position)} : {}),
      ...state.replaced,
      ...this.caches,
    });
    const pick = (names: string[]): Arrays => Object.fromEntries(names.map((name) => [name, outputs[name]]));
    const appended = this.appended.length > 0 ? [...state.appended, pick(this.appended)] : [];
    const attention = this.step.regions === null ? null : outputs.attention;
    return {scores: outputs.scores, state: {replaced: pick(this.replaced), appended}, attention};
  }

  private zeros(name: string): Float32Array {
    return new Float32Array(elements(this.step.state[name].shape));
  }

  /** Bring the caches to the words of a hypothesis; what they have in common with the last one stays. */
  private write(slices: Arrays[]): void {
    slices.forEach((slice, position) => {
      if (this.written[position] === slice) return;
      for (const [name, array] of Object.entries(slice)) this.caches[name].set(array, position * array.length);
      this.written = [...this.written.slice(0, position), slice];
    });
  }
}
