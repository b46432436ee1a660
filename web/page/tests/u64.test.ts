import { describe, expect, it } from 'vitest';
import { parseU64, toNumber } from '../src/lib/u64';

describe('64-bit numbers', () => {
  it('are numbers up to 2⁵³ and strings above', () => {
    expect(parseU64('9007199254740992')).toBe(9007199254740992);
    expect(parseU64('9007199254740993')).toBe('9007199254740993');
    expect(parseU64('18446744073709551615')).toBe('18446744073709551615');
    expect(parseU64(' 7 ')).toBe(7);
    expect(parseU64('007')).toBe(7);
  });
  it('are refused beyond 64 bits and in other forms', () => {
    for (const text of ['18446744073709551616', '-1', '1.0', '1e3', '', 'x', '99999999999999999999999']) {
      expect(parseU64(text), text).toBeNull();
    }
  });
  it('become numbers where JavaScript has them', () => {
    expect([toNumber('12'), toNumber(undefined)]).toEqual([12, 0]);
  });
});
