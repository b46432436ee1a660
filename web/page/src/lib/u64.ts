// Whole numbers of 64 bits: JSON has them as numbers up to 2⁵³ and as strings of digits above.

/** A number as the API writes it. */
export type U64 = number | string;

const LARGEST_EXACT = 2n ** 53n;
const LARGEST = 2n ** 64n - 1n;

/** The nearest number that JavaScript has: exact for counts, sizes and indices. */
export function toNumber(value: U64 | null | undefined): number {
  return value === null || value === undefined ? 0 : Number(value);
}

/** The number of these digits, in the form of the API; `null` if it is not one of 64 bits. */
export function parseU64(text: string): U64 | null {
  const trimmed = text.trim();
  if (!/^\d{1,20}$/.test(trimmed)) return null;
  const value = BigInt(trimmed);
  if (value > LARGEST) return null;
  return value <= LARGEST_EXACT ? Number(value) : value.toString();
}
