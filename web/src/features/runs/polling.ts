import { useEffect, useState } from "react";
import { fetchCurve, fetchRun, fetchRuns, fetchWritten } from "../../api/runs";
import type { Run, RunCards, RunWritten } from "../../api/types";
import { failureOf } from "../../store/collect";
import type { Failure } from "../../store/records";
import { type Curve, merged } from "./curve";

const LIST_MS = 4000;
const RUN_MS = 2500;
const CURVE_MS = 1500;
/** After an answer that has more to follow. */
const AT_ONCE_MS = 30;

/** Runs a task again and again; not while the page is hidden. It says after how long to begin again; null ends it. */
function repeated(task: (signal: AbortSignal) => Promise<number | null>): () => void {
  const stop = new AbortController();
  let timer: number | undefined;
  let busy = false;
  const turn = async (): Promise<void> => {
    window.clearTimeout(timer);
    if (busy || document.hidden || stop.signal.aborted) return;
    busy = true;
    const pause = await task(stop.signal);
    busy = false;
    if (pause !== null && !stop.signal.aborted) timer = window.setTimeout(() => void turn(), pause);
  };
  const shown = () => void turn();
  document.addEventListener("visibilitychange", shown);
  void turn();
  return () => {
    stop.abort();
    window.clearTimeout(timer);
    document.removeEventListener("visibilitychange", shown);
  };
}

export interface Polled<T> {
  value: T | null;
  failure: Failure | null;
}

/** What a request answers, asked again and again; `key` says what is asked for. */
function usePolled<T>(key: string, load: (signal: AbortSignal) => Promise<T>, pause: number): Polled<T> & { key: string } {
  const [found, setFound] = useState<Polled<T> & { key: string }>({ key, value: null, failure: null });
  useEffect(
    () =>
      repeated(async (signal) => {
        try {
          const value = await load(signal);
          setFound({ key, value, failure: null });
        } catch (error) {
          if (signal.aborted) return null;
          const failure = failureOf(error);
          setFound((before) => ({ key, value: before.key === key && failure.status !== 404 ? before.value : null, failure }));
          if (failure.status === 401) return null;
        }
        return pause;
      }),
    // `load` is a new function each time; what it asks for is in the key.
    // eslint-disable-next-line react-hooks/exhaustive-deps
    [key, pause],
  );
  return found;
}

/** The list; the old one stays until that of another search is here. */
export const useRuns = (search: string): Polled<RunCards> => usePolled(search, (signal) => fetchRuns(search, signal), LIST_MS);

/** What the model of a curve wrote at a validation; null follows the last one. */
export const useWritten = (run: string, curve: string, step: number | null): Polled<RunWritten> =>
  usePolled(JSON.stringify([run, curve, step]), (signal) => fetchWritten(run, curve, step, signal), RUN_MS);

/** Some runs, by name; what is not here yet is missing. */
export function useRunDetails(names: readonly string[]): { runs: ReadonlyMap<string, Run>; failures: ReadonlyMap<string, Failure> } {
  const key = JSON.stringify(names);
  const [found, setFound] = useState<{ runs: ReadonlyMap<string, Run>; failures: ReadonlyMap<string, Failure> }>({ runs: new Map(), failures: new Map() });
  useEffect(() => {
    const wanted = JSON.parse(key) as string[];
    return repeated(async (signal) => {
      for (const name of wanted) {
        try {
          const run = await fetchRun(name, signal);
          setFound((before) => ({ runs: new Map(before.runs).set(name, run), failures: without(before.failures, name) }));
        } catch (error) {
          if (signal.aborted) return null;
          const failure = failureOf(error);
          setFound((before) => ({
            runs: failure.status === 404 ? without(before.runs, name) : before.runs,
            failures: new Map(before.failures).set(name, failure),
          }));
          if (failure.status === 401) return null;
        }
      }
      return RUN_MS;
    });
  }, [key]);
  return found;
}

function without<T>(map: ReadonlyMap<string, T>, name: string): ReadonlyMap<string, T> {
  if (!map.has(name)) return map;
  const rest = new Map(map);
  rest.delete(name);
  return rest;
}

/** The curve of one run, in its colour. */
export interface Drawn {
  id: string;
  colour: number;
  curve: Curve;
}

export interface Curves {
  /** Which curve these are of; what is asked for, once it is here. */
  of: string | null;
  drawn: readonly Drawn[];
  /** Whether all that is asked for has been answered. */
  current: boolean;
}

/** One curve of some runs, as far as it is known; what was shown before stays until the first answers are here. */
export function useCurves(runs: readonly Pick<Drawn, "id" | "colour">[], curve: string | null): Curves {
  const key = JSON.stringify([curve, ...runs.map(({ id, colour }) => [id, colour])]);
  const [found, setFound] = useState<{ key: string; of: string | null; drawn: readonly Drawn[] }>({ key: "", of: null, drawn: [] });
  useEffect(() => {
    const [of, ...pairs] = JSON.parse(key) as [string | null, ...[string, number][]];
    if (of === null) return undefined;
    const known = new Map<string, Curve>();
    let first = true;
    return repeated(async (signal) => {
      let pause = CURVE_MS;
      let changed = first;
      let answered = pairs.length === 0;
      for (const [name] of pairs) {
        try {
          const before = known.get(name) ?? null;
          const news = await fetchCurve(name, of, before?.cursor ?? "", signal);
          if (news.left > 0) pause = AT_ONCE_MS;
          changed ||= news.fresh || before === null || news.left !== before.left || news.parts.some((part) => part.steps.length > 0) || news.problem !== before.problem;
          known.set(name, merged(before, news));
          answered = true;
        } catch (error) {
          if (signal.aborted) return null;
          const { status } = failureOf(error);
          if (status === 401) return null;
          answered ||= status === 404;
        }
      }
      if (changed && answered) {
        first = false;
        const drawn = pairs.flatMap(([id, colour]) => {
          const one = known.get(id);
          return one ? [{ id, colour, curve: one }] : [];
        });
        setFound({ key, of, drawn });
      }
      return pause;
    });
  }, [key]);
  return { ...found, current: found.key === key };
}
