/** The same question to several models at once, with the same seed. */
import { create } from "zustand";
import { endGeneration, streamChat } from "../../api/stream";
import type { TokenChoice } from "../../api/types";
import { perFrame } from "../../lib/frames";
import { newId } from "../../lib/ids";
import { requestOf } from "../../store/answering";
import { Collector, failureOf } from "../../store/collect";
import { lasting } from "../../store/lasting";
import type { Failure, Metrics, Place } from "../../store/records";
import type { Settings } from "../../store/settings";

export const MOST_COLUMNS = 3;

export interface Column {
  id: string;
  model: string;
  text: string;
  tokens: TokenChoice[];
  state: "empty" | "streaming" | "done" | "stopped" | "failed";
  metrics: Metrics | null;
  failure: Failure | null;
}

export const newColumn = (model: string): Column => ({
  id: newId(),
  model,
  text: "",
  tokens: [],
  state: "empty",
  metrics: null,
  failure: null,
});

interface Comparison {
  columns: Column[];
  /** What was asked last, and how. */
  question: string;
  settings: Settings;
}

export const useColumns = create<Comparison>(() => ({ columns: [], question: "", settings: {} }));

const running = new Map<string, AbortController>();

export function setColumns(columns: Column[]): void {
  const kept = new Set(columns.map((column) => column.id));
  for (const [id, controller] of running) if (!kept.has(id)) controller.abort();
  useColumns.setState({ columns });
}

function change(id: string, changes: Partial<Column>): void {
  useColumns.setState(({ columns }) => ({ columns: columns.map((one) => (one.id === id ? { ...one, ...changes } : one)) }));
}

export function stopAll(): void {
  for (const controller of running.values()) controller.abort();
}

export function askAll(question: string, settings: Settings): void {
  stopAll();
  useColumns.setState({ question, settings });
  for (const column of useColumns.getState().columns) void askOne(column, question, settings);
}

/** Asks the model of one column the same again. */
export function askAgain(column: Column): void {
  const { question, settings } = useColumns.getState();
  void askOne(column, question, settings);
}

async function askOne({ id, model }: Column, question: string, settings: Settings): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  const collected = new Collector("", () => performance.now());
  const show = () => change(id, { text: collected.text, tokens: [...collected.tokens] });
  const frames = perFrame(show);
  change(id, { text: "", tokens: [], state: "streaming", metrics: null, failure: null });
  let end: Partial<Column> = { state: "done" };
  const place: { now: Place | null } = { now: null };
  // Nobody joins it again after that: the server's place is freed.
  const leave = () => place.now && void endGeneration(place.now.id);
  window.addEventListener("pagehide", leave);
  try {
    const request = requestOf(model, [{ role: "user", content: question }], settings);
    const stream = streamChat(request, controller.signal);
    for await (const event of lasting(stream, place, controller.signal)) if (collected.take(event)) frames.ask();
  } catch (error) {
    end = controller.signal.aborted ? { state: "stopped" } : { state: "failed", failure: failureOf(error) };
  }
  frames.end();
  window.removeEventListener("pagehide", leave);
  if (end.state !== "done") leave();
  if (running.get(id) !== controller) return;
  running.delete(id);
  show();
  change(id, { ...end, metrics: collected.metrics() });
}
