/** How an answer is sampled. What is absent is as the model's folder says. */
export interface Settings {
  system?: string;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  frequency_penalty?: number;
  presence_penalty?: number;
  mode?: "combined" | "independent";
  max_tokens?: number;
  seed?: number;
  stop?: string[];
  /** Ask for each token's probability. */
  probabilities?: boolean;
}

export interface NumberField {
  name: "temperature" | "top_p" | "top_k" | "min_p" | "frequency_penalty" | "presence_penalty" | "max_tokens" | "seed";
  low: number;
  high: number;
  step: number;
  whole: boolean;
  /** `low` itself is not allowed. */
  above?: boolean;
}

/** The API's ranges; where it has no upper end, a number beyond which nothing changes. */
export const NUMBER_FIELDS: readonly NumberField[] = [
  { name: "temperature", low: 0, high: 5, step: 0.05, whole: false },
  { name: "top_p", low: 0, high: 1, step: 0.01, whole: false, above: true },
  { name: "top_k", low: 0, high: 1_000_000, step: 1, whole: true },
  { name: "min_p", low: 0, high: 1, step: 0.01, whole: false },
  { name: "frequency_penalty", low: -2, high: 2, step: 0.1, whole: false },
  { name: "presence_penalty", low: -2, high: 2, step: 0.1, whole: false },
  { name: "max_tokens", low: 1, high: 1_000_000, step: 1, whole: true },
  { name: "seed", low: 0, high: Number.MAX_SAFE_INTEGER, step: 1, whole: true },
];

export type Problem = "number" | "whole" | "range";

/** What is wrong with a typed number; null for none. An empty text means the model's default. */
export function problemOf(field: NumberField, typed: string): Problem | null {
  const text = typed.trim();
  if (text === "") return null;
  const value = Number(text);
  if (!Number.isFinite(value)) return "number";
  if (field.whole && !Number.isInteger(value)) return "whole";
  const low = field.above ? value > field.low : value >= field.low;
  return low && value <= field.high ? null : "range";
}

export interface Preset {
  name: string;
  settings: Settings;
}

export const PRESETS: readonly (Preset & { key: "model" | "precise" | "balanced" | "creative" })[] = [
  { key: "model", name: "model", settings: {} },
  { key: "precise", name: "precise", settings: { temperature: 0 } },
  { key: "balanced", name: "balanced", settings: { temperature: 0.5, top_p: 0.9, top_k: 40 } },
  { key: "creative", name: "creative", settings: { temperature: 1, top_p: 0.95, presence_penalty: 0.4 } },
];

const SAMPLING = ["temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "mode"] as const;

/** A preset over settings: it replaces how tokens are drawn, and leaves the rest. */
export function withPreset(settings: Settings, preset: Settings): Settings {
  const kept: Settings = { ...settings };
  for (const name of SAMPLING) Reflect.deleteProperty(kept, name);
  return { ...kept, ...preset };
}

/** What a preset holds of settings. */
export function samplingOf(settings: Settings): Settings {
  return Object.fromEntries(SAMPLING.flatMap((name) => (settings[name] === undefined ? [] : [[name, settings[name]]])));
}

export function hasPreset(settings: Settings, preset: Settings): boolean {
  return SAMPLING.every((name) => settings[name] === preset[name]);
}

/** Settings from anything: what is not one is left out, so that imported files cannot break a page. */
export function cleanSettings(given: unknown): Settings {
  if (typeof given !== "object" || given === null) return {};
  const from = given as Record<string, unknown>;
  const settings: Settings = {};
  for (const field of NUMBER_FIELDS) {
    const value = from[field.name];
    if (typeof value === "number" && problemOf(field, String(value)) === null) settings[field.name] = value;
  }
  if (typeof from.system === "string") settings.system = from.system;
  if (from.mode === "combined" || from.mode === "independent") settings.mode = from.mode;
  if (Array.isArray(from.stop)) {
    const stop = from.stop.filter((text): text is string => typeof text === "string" && text !== "");
    if (stop.length > 0) settings.stop = stop;
  }
  if (from.probabilities === true) settings.probabilities = true;
  return settings;
}

export const LONGEST_PRESET_NAME = 40;

/** Presets from anything, each name once: of those that share one the first. */
export function cleanPresets(given: unknown): Preset[] {
  if (!Array.isArray(given)) return [];
  const found = new Map<string, Preset>();
  for (const one of given as unknown[]) {
    if (typeof one !== "object" || one === null || !("name" in one) || typeof one.name !== "string") continue;
    const name = one.name.trim().slice(0, LONGEST_PRESET_NAME).trim();
    if (name !== "" && !found.has(name)) found.set(name, { name, settings: samplingOf(cleanSettings("settings" in one ? one.settings : {})) });
  }
  return [...found.values()];
}
