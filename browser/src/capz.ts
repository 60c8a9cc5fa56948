// The packed bundle: docs/bundle_format.md, section 8.1.
import {Refusal, require} from './errors';
import {inflate} from './inflate';
import {expandPieces} from './pieces';
import {sha256} from './sha256';

const MAX_BYTES = 2 ** 30;
const MAX_HEADER_BYTES = 65536;
const MAX_MEMBERS = 256;
const PREAMBLE_BYTES = 20;
const DIGEST_BYTES = 32;
const VOCABULARY = 'vocabulary.txt';
const PLAIN = ['manifest.json', VOCABULARY, 'MODEL_CARD.md', 'plan.json', 'quality.json', 'golden/golden.json'];
const MODELS = ['encoder.tflite', 'decoder.tflite', 'encoder.onnx', 'decoder.onnx'];
const GOLDEN_PHOTO = /^golden\/[a-z0-9][a-z0-9_-]{0,63}\.png$/;

interface Member {
  coding: number;
  size: number;
  section: Uint8Array;
  digest: string;
}

/** A packed bundle whose structure is checked; its files are expanded when they are read. */
export class Capz {
  private constructor(private readonly members: Map<string, Member>) {}

  get names(): string[] {
    return [...this.members.keys()];
  }

  /** Check the container: sizes, names, and the SHA-256 of everything before its end. */
  static open(data: Uint8Array): Capz {
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const magic = String.fromCharCode(...data.subarray(0, 4));
    require(data.length >= PREAMBLE_BYTES + DIGEST_BYTES && magic === 'CAPZ', 'this is no packed bundle');
    const version = view.getUint32(4, true);
    require(version <= 1, 'the packed bundle was written by a later capprune', {expected: 1, found: version});
    require(version === 1, 'the packed bundle has an impossible version', {found: version});
    const size = view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32;
    require(size === data.length, 'the packed bundle is cut off, or other bytes follow it', {expected: size, found: data.length});
    const end = data.length - DIGEST_BYTES;
    require(sha256(data.subarray(0, end)) === hex(data.subarray(end)), 'the packed bundle is not the one that was written');
    const headerBytes = view.getUint32(16, true);
    const most = Math.min(MAX_HEADER_BYTES, end - PREAMBLE_BYTES);
    require(0 < headerBytes && headerBytes <= most, 'size of the header', {expected: most, found: headerBytes});
    const behind = PREAMBLE_BYTES + headerBytes;
    return new Capz(readHeader(data.subarray(PREAMBLE_BYTES, behind), data.subarray(behind, end)));
  }

  /** Expand one file and check its SHA-256. */
  async read(name: string): Promise<Uint8Array> {
    const member = this.members.get(name);
    if (member === undefined) throw new Refusal('a file of the bundle is missing', {where: name});
    const {coding, section, size} = member;
    const content = coding === 1 ? await inflate(section, size, name) : await expandPieces(section, size, () => this.words());
    require(sha256(content) === member.digest, 'a file does not expand to what was packed', {where: name});
    return content;
  }

  private async words(): Promise<Uint8Array> {
    const coding = this.members.get(VOCABULARY)?.coding;
    require(coding === undefined || coding === 1, 'the vocabulary is not a zlib stream, and a model file refers to it');
    return this.read(VOCABULARY);
  }
}

function readHeader(header: Uint8Array, sections: Uint8Array): Map<string, Member> {
  const members = new Map<string, Member>();
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  let [at, from, total, last] = [0, 0, 0, ''];
  while (at < header.length) {
    const length = header[at];
    const name = String.fromCharCode(...header.subarray(at + 1, at + 1 + length));
    at += 1 + length;
    require(at + 41 <= header.length, 'the header is cut off');
    const known = PLAIN.includes(name) || MODELS.includes(name) || GOLDEN_PHOTO.test(name);
    require(known, 'a packed bundle holds a file that is not of the format', {where: JSON.stringify(name)});
    require(name > last, 'names of the header must rise', {where: name});
    const coding = header[at];
    const size = view.getUint32(at + 1, true);
    const stored = view.getUint32(at + 5, true);
    require(coding === 1 || coding === 2, 'unknown coding of a file', {where: name, found: coding});
    total += size;
    require(total <= MAX_BYTES && members.size < MAX_MEMBERS, 'the packed bundle would expand to too much');
    require(from + stored <= sections.length, 'a section lies behind the end of the file', {where: name});
    const digest = hex(header.subarray(at + 9, at + 41));
    members.set(name, {coding, size, digest, section: sections.subarray(from, from + stored)});
    from += stored;
    at += 41;
    last = name;
  }
  require(from === sections.length, 'bytes of the packed bundle belong to no file');
  return members;
}

function hex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
