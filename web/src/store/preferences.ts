import { create } from "zustand";
import { readText, writeText } from "../lib/storage";
import { cleanPresets, cleanSettings, type Preset, type Settings } from "./settings";

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
    presets: cleanPresets(given.presets),
  };
}

/** What an export of everything holds beside the conversations. */
export type Kept = Pick<Preferences, "defaults" | "presets">;

export function keptPreferences(): Kept {
  const { defaults, presets } = usePreferences.getState();
  return { defaults, presets };
}

/** Adds presets under names that are not here, and the settings of new conversations where none are chosen.
 *
 * Returns how many presets were added.
 */
export function addPreferences(given: Kept): number {
  const { defaults, presets } = keptPreferences();
  const names = new Set(presets.map((preset) => preset.name));
  const added = given.presets.filter((preset) => !names.has(preset.name));
  keep({ presets: [...presets, ...added], ...(Object.keys(defaults).length === 0 ? { defaults: given.defaults } : {}) });
  return added.length;
}
