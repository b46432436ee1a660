// Scrolling further than browsers allow elements to be high (17.9 million pixels in Firefox).
//
// A short scroll container stands for a tall wall. Small movements (wheel, touch, keys) move the
// wall pixel by pixel. A jump (the scrollbar is dragged) moves it in proportion. After small
// movements the container's position is corrected, so that the scrollbar shows the true place.

/** Highest scroll container. Every browser can show it, and each pixel of its scrollbar counts. */
export const TALLEST = 4_000_000;

export class ScrollMap {
  /** Top of what is seen, in pixels of the wall. */
  top = 0;
  #last = 0;

  constructor(public total = 0, public viewport = 0) {}

  /** Height of the scroll container's content. */
  get height(): number {
    return Math.min(this.total, TALLEST);
  }

  get most(): number {
    return Math.max(0, this.total - this.viewport);
  }

  /** The container's position that shows the true place. */
  get container(): number {
    const room = this.height - this.viewport;
    if (this.total <= TALLEST || room <= 0) return this.top;
    return Math.round((this.top / this.most) * room);
  }

  /** The wall has other dimensions. What was at the top stays there if it still exists. */
  resize(total: number, viewport: number, top: number): void {
    this.total = total;
    this.viewport = viewport;
    this.moveTo(top);
  }

  /** Moves the wall. Set the container to `container` afterwards. */
  moveTo(top: number): void {
    this.top = Math.min(this.most, Math.max(0, top));
    this.#last = this.container;
  }

  /** The container was scrolled to a position. */
  scrolled(position: number): void {
    const moved = position - this.#last;
    if (moved === 0) return;
    const room = this.height - this.viewport;
    if (this.total <= TALLEST) {
      this.top = position;
    } else if (position <= 0) {
      this.top = 0;
    } else if (position >= room) {
      this.top = this.most;
    } else if (Math.abs(moved) <= 2 * this.viewport) {
      this.top += moved;
    } else {
      this.top = (position / room) * this.most;
    }
    this.top = Math.min(this.most, Math.max(0, this.top));
    this.#last = position;
  }

  /** The container was corrected; this is no movement of the wall. */
  settled(): number {
    this.#last = this.container;
    return this.#last;
  }

  /** Whether the container is about to end before the wall does. */
  needsCorrection(position: number): boolean {
    return this.total > TALLEST && Math.abs(position - this.container) > this.viewport / 2;
  }
}
