/** A refusal with the facts that every error of capprune has. */
export class Refusal extends Error {
  constructor(
    readonly what: string,
    readonly facts: {where?: string; expected?: unknown; found?: unknown; hint?: string} = {},
  ) {
    super(what);
  }

  /** The message for people. */
  get text(): string {
    const {where, expected, found, hint} = this.facts;
    const parts = [where === undefined ? this.what : `${this.what}: ${where}`];
    if (expected !== undefined) parts.push(`expected ${expected}`);
    if (found !== undefined) parts.push(`found ${found}`);
    if (hint !== undefined) parts.push(hint);
    return parts.join('; ');
  }
}

/** Throw a refusal unless a rule holds. */
export function require(holds: boolean, what: string, facts: Refusal['facts'] = {}): asserts holds {
  if (!holds) throw new Refusal(what, facts);
}
