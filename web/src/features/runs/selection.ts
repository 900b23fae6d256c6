import { useLocation, useSearch } from "wouter";
import { COLOURS } from "./colours";

/** Which run is looked at, and which are plotted beside it: they stand in the address, so that it can be shared. */
export interface Selection {
  run: string | null;
  beside: readonly string[];
}

const RUN = "run";
const BESIDE = "with";

export function selectionOf(search: string): Selection {
  const found = new URLSearchParams(search);
  const run = found.get(RUN);
  const beside = [...new Set(found.getAll(BESIDE))].filter((one) => one !== run);
  return { run, beside: beside.slice(0, COLOURS - 1) };
}

export function addressOf({ run, beside }: Selection): string {
  const kept = new URLSearchParams();
  if (run !== null) kept.set(RUN, run);
  for (const one of beside) kept.append(BESIDE, one);
  const search = kept.toString();
  return search === "" ? "/runs" : `/runs?${search}`;
}

export function useSelection(): [Selection, (next: Selection) => void] {
  const search = useSearch();
  const [, navigate] = useLocation();
  return [selectionOf(search), (next) => navigate(addressOf(next), { replace: true })];
}
