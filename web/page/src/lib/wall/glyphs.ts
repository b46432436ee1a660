// How states are drawn on canvases: a colour and a shape each, as in the legend.
import { IMAGE_STATES } from '../states';
import type { ImageState } from '../types';

const PROPERTIES: Record<ImageState, string> = {
  unknown: '--sunken',
  waiting: '--state-waiting',
  ready: '--state-ready',
  dispatched: '--state-running',
  done: '--state-done',
  dead: '--state-dead',
  cancelled: '--state-cancelled',
};

export interface Palette {
  ground: string;
  /** By the number of the state. */
  states: string[];
}

/** The colours as the theme has them now. An element's computed colour has `light-dark()` resolved. */
export function palette(within: HTMLElement): Palette {
  const probe = document.createElement('span');
  within.append(probe);
  const read = (property: string): string => {
    probe.style.color = `var(${property})`;
    return getComputedStyle(probe).color;
  };
  const states = IMAGE_STATES.map((state) => read(PROPERTIES[state]));
  const ground = read('--sunken');
  probe.remove();
  return { ground, states };
}

/** A colour as the 32 bits that `ImageData` has on little-endian machines. */
export function packed(colour: string): number {
  const [red = 0, green = 0, blue = 0] = (colour.match(/[\d.]+/g) ?? []).map(Number);
  return ((255 << 24) | (Math.round(blue) << 16) | (Math.round(green) << 8) | Math.round(red)) >>> 0;
}

/** One row of cells, a state each, to copy from. */
export function atlas(size: number, colours: Palette): HTMLCanvasElement {
  const canvas = document.createElement('canvas');
  canvas.width = size * IMAGE_STATES.length;
  canvas.height = size;
  const context = canvas.getContext('2d')!;
  for (const [at, state] of IMAGE_STATES.entries()) {
    context.save();
    context.translate(at * size, 0);
    drawGlyph(context, state, size, colours.states[at]);
    context.restore();
  }
  return canvas;
}

function drawGlyph(context: CanvasRenderingContext2D, state: ImageState, size: number, colour: string): void {
  const middle = size / 2;
  const inset = size < 8 ? 0.5 : Math.max(1, size * 0.08);
  const reach = Math.min(middle - inset, size < 8 ? size : 5 + size * 0.12);
  context.fillStyle = colour;
  context.strokeStyle = colour;
  context.lineWidth = Math.max(1, Math.min(2.5, size / 7));
  context.lineCap = 'round';
  context.beginPath();
  switch (state) {
    case 'done':
      context.fillRect(inset, inset, size - 2 * inset, size - 2 * inset);
      return;
    case 'dead':
      context.moveTo(middle - reach * 0.7, middle - reach * 0.7);
      context.lineTo(middle + reach * 0.7, middle + reach * 0.7);
      context.moveTo(middle + reach * 0.7, middle - reach * 0.7);
      context.lineTo(middle - reach * 0.7, middle + reach * 0.7);
      context.stroke();
      return;
    case 'dispatched':
      context.arc(middle, middle, reach * 0.75, 0, 2 * Math.PI);
      context.stroke();
      context.beginPath();
      context.arc(middle, middle, reach * 0.75, -Math.PI / 2, Math.PI / 2);
      context.fill();
      return;
    case 'ready':
      context.arc(middle, middle, reach * 0.7, 0, 2 * Math.PI);
      context.stroke();
      return;
    case 'cancelled':
      context.moveTo(middle - reach * 0.6, middle + reach * 0.6);
      context.lineTo(middle + reach * 0.6, middle - reach * 0.6);
      context.stroke();
      return;
    case 'waiting':
      context.arc(middle, middle, Math.max(0.8, reach * 0.28), 0, 2 * Math.PI);
      context.fill();
      return;
    case 'unknown':
      return;
  }
}
