import { askJson } from "./http";
import type { Run, RunCards, RunCurve, RunWritten } from "./types";

const at = (run: string): string => `/v1/runs/${encodeURIComponent(run)}`;

export const fetchRuns = (search: string, signal: AbortSignal): Promise<RunCards> =>
  askJson<RunCards>(`/v1/runs?${new URLSearchParams({ search })}`, { signal });

export const fetchRun = (run: string, signal: AbortSignal): Promise<Run> => askJson<Run>(at(run), { signal });

/** What is new of a curve since the answer that gave this cursor. */
export const fetchCurve = (run: string, curve: string, cursor: string, signal: AbortSignal): Promise<RunCurve> =>
  askJson<RunCurve>(`${at(run)}/curves/${encodeURIComponent(curve)}?${new URLSearchParams({ cursor })}`, { signal });

/** What the model wrote at a validation, or at the last one. */
export const fetchWritten = (run: string, curve: string, step: number | null, signal: AbortSignal): Promise<RunWritten> =>
  askJson<RunWritten>(`${at(run)}/samples/${encodeURIComponent(curve)}${step === null ? "" : `?${new URLSearchParams({ step: String(step) })}`}`, { signal });
