const DARKEST = 0.75; // how much of the light is taken where the model did not look

/** Dim a photo where attention over a square grid of regions is least. */
export function drawAttention(canvas: HTMLCanvasElement, weights: number[], side: number): void {
  const [low, high] = [Math.min(...weights), Math.max(...weights)];
  const cells = new ImageData(side, side);
  weights.forEach((weight, i) => {
    const light = high > low ? (weight - low) / (high - low) : 1;
    cells.data[4 * i + 3] = Math.round(255 * DARKEST * (1 - light));
  });
  const small = document.createElement('canvas');
  small.width = small.height = side;
  small.getContext('2d')!.putImageData(cells, 0, 0);
  canvas.width = canvas.height = 448;
  const context = canvas.getContext('2d')!;
  context.imageSmoothingQuality = 'high';
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  canvas.hidden = false;
}
