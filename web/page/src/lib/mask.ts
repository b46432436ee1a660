// Strokes of a mask. They are kept as lines in the picture's own pixels, so that one can be undone
// and the mask is sharp at any size.

export interface Stroke {
  erases: boolean;
  /** Diameter of the brush. */
  size: number;
  points: { x: number; y: number }[];
}

/** Draws strokes in one colour on a context whose scale is already set. */
export function draw(context: CanvasRenderingContext2D, strokes: readonly Stroke[], colour: string): void {
  context.lineCap = context.lineJoin = 'round';
  for (const stroke of strokes) {
    context.globalCompositeOperation = stroke.erases ? 'destination-out' : 'source-over';
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = stroke.size;
    const [first, ...rest] = stroke.points;
    context.beginPath();
    if (rest.length === 0) {
      context.arc(first.x, first.y, stroke.size / 2, 0, 2 * Math.PI);
      context.fill();
      continue;
    }
    context.moveTo(first.x, first.y);
    for (const point of rest) context.lineTo(point.x, point.y);
    context.stroke();
  }
  context.globalCompositeOperation = 'source-over';
}

/** The mask as a PNG of the picture's size: white strokes on black. */
export async function toPng(strokes: readonly Stroke[], width: number, height: number): Promise<Blob> {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  if (!context) throw new Error('The browser has no room for a mask of this size.');
  draw(context, strokes, '#fff');
  context.globalCompositeOperation = 'destination-over';
  context.fillStyle = '#000';
  context.fillRect(0, 0, width, height);
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, 'image/png'));
  if (!blob) throw new Error('The browser could not make a picture of the mask.');
  return blob;
}
