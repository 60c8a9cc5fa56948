// From token ids to a caption: docs/bundle_format.md, section 3.
import {Refusal, require} from './errors';
import type {Tokens} from './manifest';

const SPECIAL = ['<pad>', '<start>', '<end>', '<unk>'];
const UNKNOWN = 3;
const PIECE_SPACE = '\u2581';
const UNSPACED = [
  [0x0e00, 0x0eff], [0x1000, 0x109f], [0x1780, 0x17ff], [0x2e80, 0x2fdf], [0x3005, 0x3007], [0x3040, 0x312f],
  [0x31f0, 0x31ff], [0x3400, 0x4dbf], [0x4e00, 0x9fff], [0xf900, 0xfaff], [0xff66, 0xff9f], [0x20000, 0x3ffff],
];

/** The words or pieces of a model. */
export class Vocabulary {
  private constructor(
    private readonly lines: string[],
    private readonly coding: Tokens,
  ) {}

  /** Read a vocabulary.txt and check it against the number of scores. */
  static parse(content: Uint8Array, coding: Tokens, scores: number): Vocabulary {
    let text: string;
    try {
      text = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true}).decode(content);
    } catch {
      throw new Refusal('the vocabulary is not UTF-8');
    }
    require(text.endsWith('\n'), 'the vocabulary does not end with a line feed');
    const lines = text.slice(0, -1).split('\n');
    require(SPECIAL.every((word, i) => lines[i] === word), 'a special token is not in its place');
    require(new Set(lines).size === lines.length, 'a token of the vocabulary stands twice');
    const broken = lines.findIndex((line) => [...line].length > 100 || !/^[^\p{C}\p{Z}]+$/u.test(line.replace(/[\u200c\u200d]/g, '')));
    require(broken === -1, 'a token is empty, too long, or holds a space or a control character', {where: `line ${broken + 1}`});
    const size = coding.kind === 'radix' ? coding.base + 4 : lines.length;
    require(size === scores, 'the vocabulary does not fit the model', {expected: scores, found: size});
    require(coding.kind !== 'radix' || lines.length - 4 <= coding.base ** 2, 'there are more words than radix tokens can number');
    return new Vocabulary(lines, coding);
  }

  /** The text of token ids. */
  caption(ids: readonly number[]): string {
    const found = this.found(ids);
    return this.coding.kind === 'characters' || this.coding.kind === 'subwords' ? joinedPieces(found) : joinedWords(found);
  }

  /** One text for each token id, to stand beside the token's attention. */
  shown(ids: readonly number[]): string[] {
    if (this.coding.kind !== 'radix') return ids.map((id) => this.lines[id].replaceAll(PIECE_SPACE, ' '));
    const words = this.found(ids).flatMap((word) => ['\u2026', word]);
    return ids.length % 2 === 0 ? words : [...words, '\u2026'];
  }

  private found(ids: readonly number[]): string[] {
    const spoken = ids.filter((id) => id > 2);
    if (this.coding.kind !== 'radix') return spoken.map((id) => this.lines[id]);
    const words: string[] = [];
    for (let i = 0; i + 1 < spoken.length; i += 2) {
      const line = 4 + (spoken[i] - 4) * this.coding.base + spoken[i + 1] - 4;
      const known = spoken[i] >= 4 && spoken[i + 1] >= 4 && line < this.lines.length;
      words.push(this.lines[known ? line : UNKNOWN]);
    }
    return words;
  }
}

function unspaced(character: string): boolean {
  const point = character.codePointAt(0)!;
  return UNSPACED.some(([first, last]) => first <= point && point <= last);
}

function joinedWords(words: string[]): string {
  let text = '';
  let last = '';
  for (const word of words) {
    const characters = [...word];
    const close = text === '' || (unspaced(last) && unspaced(characters[0]));
    text += close ? word : ` ${word}`;
    last = characters[characters.length - 1];
  }
  return text;
}

function joinedPieces(pieces: string[]): string {
  return pieces.join('').split(PIECE_SPACE).filter((piece) => piece !== '').join(' ');
}
