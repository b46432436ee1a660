// What changes seldom: the cascades, and how money is shown. Asked for once.
import { display as displayApi, farm } from './api';
import { short } from './format';
import { isAborted } from './problem';
import type { Cascade, Job } from './types';

class Catalog {
  cascades = $state.raw<Cascade[] | null>(null);
  /** Absent where the farm has no price. */
  display = $state.raw<{ currency: string; price: number } | null>(null);
  error = $state.raw<unknown>(null);
  #asked: Promise<void> | null = null;

  /** It is there when this ends, or `error` says why not. After a failure, the next call asks again. */
  need(): Promise<void> {
    if (this.#asked === null) {
      const asked = this.#ask().catch((error: unknown) => {
        if (this.#asked !== asked) return;
        this.#asked = null;
        // A call that ended with its session is asked for again by the next one.
        if (!isAborted(error)) this.error = error;
      });
      this.#asked = asked;
    }
    return this.#asked;
  }

  forget(): void {
    this.#asked = null;
    this.cascades = this.display = this.error = null;
  }

  async #ask(): Promise<void> {
    const [{ cascades }, money] = await Promise.all([farm.cascades(), displayApi().catch(() => null)]);
    this.cascades = cascades;
    this.display = money?.currency && money.price_per_device_hour !== null ? { currency: money.currency, price: money.price_per_device_hour } : null;
    this.error = null;
  }

  cascade(nameOrDigest: string): Cascade | undefined {
    return this.cascades?.find((one) => one.digest === nameOrDigest || one.name === nameOrDigest);
  }

  /** Name of a job's cascade. The job itself has what its submitter wrote: a digest, or nothing. */
  nameOf(job: Job): string {
    return this.cascade(job.cascade_digest)?.name ?? (job.cascade || short(job.cascade_digest));
  }

  /** Edge of each stage's pictures. */
  sizes(digest: string): Map<string, number> {
    return new Map(this.cascade(digest)?.stages.map((stage) => [stage.name, stage.size]));
  }

  /** What so many device seconds cost; `null` where the farm has no price. */
  money(deviceSeconds: number | null | undefined): string | null {
    if (this.display === null || deviceSeconds === null || deviceSeconds === undefined) return null;
    const { currency, price } = this.display;
    const value = (deviceSeconds / 3600) * price;
    try {
      const fraction = value !== 0 && value < 1 ? 4 : 2;
      return new Intl.NumberFormat('en', { style: 'currency', currency, maximumFractionDigits: fraction }).format(value);
    } catch {
      // The farm may name something that is no ISO currency.
      return `${value.toFixed(2)} ${currency}`;
    }
  }
}

export const catalog = new Catalog();
