import { describe, expect, test } from "vitest";
import { rangeOf, tick, WHOLE, widthOf } from "../src/features/runs/axes";
import { shortened } from "../src/features/runs/names";
import { value } from "../src/features/runs/numbers";
import { linesOf, type PlotKind } from "../src/features/runs/plots";

describe("ticks", () => {
  test.each([
    [841.2, 0.05],
    [0.000125, 0.000025],
    [1.25e-5, 2.5e-6],
    [1_000_000, 2500],
    [2.5, 0.25],
    [99_999.5, 0.5],
    [-3, 0.1],
    [0, 0.2],
  ])("two neighbours of %f, %f apart, have two names", (first, apart) => {
    const names = [0, 1, 2, 3].map((index) => tick(first + index * apart, apart));
    expect(new Set(names).size).toBe(names.length);
    names.forEach((name, index) => {
      if (!/[KM]/u.test(name)) expect(Number(name.replaceAll(",", ""))).toBeCloseTo(first + index * apart, 8);
    });
  });

  test("a number has no more digits than it needs", () => {
    expect([tick(0.30000000000000004, 0.1), tick(200, 200), tick(150_000, 50_000), tick(0.004, 0.001)]).toEqual(["0.3", "200", "150K", "0.004"]);
    expect([value(3.21749), value(0.0006), value(1.23e-7), value(153_400), value(0)]).toEqual(["3.217", "0.0006", "1.2e-7", "153K", "0"]);
  });

  test("steps have whole ticks, and every label has its room", () => {
    expect(WHOLE.every(Number.isInteger)).toBe(true);
    expect(widthOf(["0.000125"])).toBeGreaterThan(widthOf(["0.1"]));
    expect(widthOf(null)).toBe(widthOf([]));
  });
});

test("an axis holds its values with air, does not make much of a last digit, and never ends where it begins", () => {
  for (const [low, high] of [[841.2, 841.4], [8.1, 8.1], [0, 0], [-2, 3], [0.0008, 0.0008]] as const) {
    const [from, to] = rangeOf(low, high);
    expect(from).toBeLessThanOrEqual(low);
    expect(to).toBeGreaterThan(high);
    expect(to - from).toBeGreaterThanOrEqual(0.01 * Math.max(Math.abs(low), Math.abs(high)));
  }
  expect(rangeOf(0.2, 4)[0]).toBeGreaterThanOrEqual(0);
  expect(rangeOf(null, null)).toEqual([0, 1]);
});

test("long names keep both ends, and letters stay whole", () => {
  expect(shortened("short", 5)).toBe("short");
  const [one, two] = ["1", "2"].map((seed) => shortened(`${"finance-".repeat(20)}${seed}`, 32));
  expect(one).not.toBe(two);
  expect(one).toHaveLength(32);
  expect(shortened("👩‍👩‍👧".repeat(10), 4)).toBe("👩‍👩‍👧…👩‍👩‍👧👩‍👩‍👧");
});

test("a loss that is not a number is said to be none", () => {
  const plot: PlotKind = { id: "loss", title: "", unit: "", sources: [{ kind: "train", metric: "loss", label: "training", dashed: false }] };
  const lost = (means: (number | null)[], metric = "loss") => {
    const column = { means, lows: null, highs: null };
    const tables = new Map([["train", { steps: [1, 2], width: 1, columns: new Map([[metric, column]]) }]]);
    const kind = { ...plot, sources: plot.sources.map((one) => ({ ...one, metric })) };
    return linesOf(kind, [{ id: "a", colour: 0, curve: { cursor: "", skipped: 0, left: 0, problem: "", tables } }], "step").map((line) => line.lost);
  };
  expect(lost([3, null])).toEqual([true]);
  expect(lost([null, 3])).toEqual([false]);
  expect(lost([3, null], "gpu_percent")).toEqual([false]);
});
