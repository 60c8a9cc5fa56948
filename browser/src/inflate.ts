import {Refusal, require} from './errors';

/** Expand one zlib stream that must fill `data` and give exactly `size` bytes. */
export async function inflate(data: Uint8Array, size: number, what: string): Promise<Uint8Array> {
  const content = new Uint8Array(size);
  let used = 0;
  try {
    // the browser refuses a damaged stream, a wrong checksum, and bytes behind the end
    const stream = new Blob([data as BlobPart]).stream().pipeThrough(new DecompressionStream('deflate'));
    const reader = stream.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (used + part.value.length > size) {
        await reader.cancel();
        throw new Refusal(`${what}: the stream has another length`, {expected: `${size} bytes`, found: 'more'});
      }
      content.set(part.value, used);
      used += part.value.length;
    }
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(`${what}: this is no whole zlib stream`, {found: String(error)});
  }
  require(used === size, `${what}: the stream has another length`, {expected: `${size} bytes`, found: used});
  return content;
}
