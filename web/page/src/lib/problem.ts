// What goes wrong with a request, in the farm's own sentence where there is one.

/** The body of an answer that refuses, as RFC 9457 has it. */
interface Body {
  status?: number;
  code?: string;
  reason?: string;
  field?: string;
  detail?: string;
  title?: string;
}

export class Problem extends Error {
  constructor(
    readonly detail: string,
    /** The HTTP status; 0 if no answer came. */
    readonly status: number,
    readonly reason: string,
    readonly field: string | null,
    /** When the same request can succeed. */
    readonly retryAfterSeconds: number | null,
  ) {
    super(detail);
  }

  /** No answer came: the request may have been carried out all the same. */
  get lost(): boolean {
    return this.status === 0 || this.status === 502 || this.status === 504;
  }

  /** Whether sending the same again can help. */
  get passing(): boolean {
    return this.lost || this.status === 503 || this.status === 429;
  }
}

/** Reads an answer that refuses. */
export async function problemOf(answer: Response): Promise<Problem> {
  const text = await answer.text().catch(() => '');
  const after = Number(answer.headers.get('Retry-After') ?? NaN);
  return problemFrom(text, answer.status, Number.isFinite(after) ? after : null);
}

/** The problem that the body of an answer states. */
function problemFrom(text: string, status: number, after: number | null): Problem {
  let body: Body = {};
  try {
    body = JSON.parse(text) as Body;
  } catch {
    // A proxy answers with a page of its own; its status has to do.
  }
  const detail = body.detail ?? body.title ?? `The farm answered with status ${status} and no reason.`;
  return new Problem(detail, status || (body.status ?? 0), body.reason ?? '', body.field ?? null, after);
}

/** After how long what failed is tried again: as the farm says, but not sooner than usual. `null`: it cannot help. */
export function retryMs(error: unknown, usual: number): number | null {
  if (!(error instanceof Problem) || !error.passing) return null;
  return Math.max(usual, (error.retryAfterSeconds ?? 0) * 1000);
}

/** A sentence for whatever was thrown. */
export function sentence(error: unknown): string {
  if (error instanceof Problem) return error.detail;
  return error instanceof Error ? error.message : String(error);
}

/** Whether a request ended because nobody wants its answer any more. */
export function isAborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}
