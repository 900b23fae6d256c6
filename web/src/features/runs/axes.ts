/** Where the axes of a plot end, and what stands at their ticks. */
import { value } from "./numbers";

const LEAST_DIGITS = 4;
/** What an axis spans at least, as a share of the greatest value: the last digits of a number are no curve. */
const LEAST_RANGE = 0.01;
const AIR = 0.06;
/** Pixels of a digit and around a label. */
const DIGIT = 7;
const AROUND = 16;
const LEAST_WIDTH = 54;

/** Distances between ticks that leave whole numbers whole: there is no half step. */
export const WHOLE = Array.from({ length: 15 }, (_, power) => [1, 2, 5].map((one) => one * 10 ** power)).flat();

/** A tick's number, with the digits that tell it from the next one, `apart` from it. */
export function tick(number: number, apart: number): string {
  if (number === 0 || apart <= 0) return value(number);
  const digits = Math.floor(Math.log10(Math.abs(number))) - Math.floor(Math.log10(apart)) + 2;
  return value(number, Math.min(15, Math.max(LEAST_DIGITS, digits)));
}

/** The room that labels need beside a plot. */
export function widthOf(labels: readonly string[] | null): number {
  return Math.max(LEAST_WIDTH, AROUND + DIGIT * Math.max(0, ...(labels ?? []).map((label) => label.length)));
}

/** A little air around the values; uPlot's own range would begin at 0 for many of them. */
export function rangeOf(low: number | null, high: number | null): [number, number] {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const lacking = Math.max(0, LEAST_RANGE * Math.max(Math.abs(low), Math.abs(high)) - (high - low));
  const air = AIR * (high - low + lacking || 1) + lacking / 2;
  return [low >= 0 ? Math.max(0, low - air) : low - air, high + air];
}
