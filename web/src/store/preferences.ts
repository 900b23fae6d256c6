import { create } from "zustand";
import { readText, writeText } from "../lib/storage";
import { cleanSettings, type Preset, type Settings } from "./settings";

export type Theme = "system" | "light" | "dark";
const PLACE = "tallyformer.preferences";
const THEME = "tallyformer.theme";

interface Preferences {
  theme: Theme;
  /** Name of the model that a new conversation begins with. */
  model: string | null;
  defaults: Settings;
  presets: Preset[];
  setTheme: (theme: Theme) => void;
  setModel: (model: string) => void;
  setDefaults: (defaults: Settings) => void;
  setPresets: (presets: Preset[]) => void;
}

/** What is kept for the whole page, in localStorage. */
export const usePreferences = create<Preferences>((set) => ({
  ...stored(),
  setTheme: (theme) => {
    set({ theme });
    writeText(THEME, theme === "system" ? null : theme);
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  },
  setModel: (model) => keep({ model }),
  setDefaults: (defaults) => keep({ defaults }),
  setPresets: (presets) => keep({ presets }),
}));

function keep(changes: Partial<Preferences>): void {
  usePreferences.setState(changes);
  const { model, defaults, presets } = usePreferences.getState();
  writeText(PLACE, JSON.stringify({ model, defaults, presets }));
}

function stored(): Pick<Preferences, "theme" | "model" | "defaults" | "presets"> {
  const theme = readText(THEME);
  let given: { model?: unknown; defaults?: unknown; presets?: unknown } = {};
  try {
    given = (JSON.parse(readText(PLACE) ?? "{}") ?? {}) as typeof given;
  } catch {
    // Not ours: begin again.
  }
  return {
    theme: theme === "light" || theme === "dark" ? theme : "system",
    model: typeof given.model === "string" ? given.model : null,
    defaults: cleanSettings(given.defaults),
    presets: presetsOf(given.presets),
  };
}

function presetsOf(given: unknown): Preset[] {
  if (!Array.isArray(given)) return [];
  return given.flatMap((one: unknown) => {
    if (typeof one !== "object" || one === null || !("name" in one) || typeof one.name !== "string") return [];
    return [{ name: one.name, settings: cleanSettings("settings" in one ? one.settings : {}) }];
  });
}
