import { Trash2 } from "lucide-react";
import { useState } from "react";
import { strings } from "../lib/strings";
import { usePreferences } from "../store/preferences";
import { LONGEST_PRESET_NAME, samplingOf, type Settings } from "../store/settings";
import { Button, IconButton } from "../ui/Button";

const words = strings.settings;

/** Own presets: kept under a name, and deleted again. */
export function PresetNames({ settings }: { settings: Settings }) {
  const { presets, setPresets } = usePreferences();
  const [name, setName] = useState("");
  const save = () => {
    setPresets([...presets.filter((preset) => preset.name !== name.trim()), { name: name.trim(), settings: samplingOf(settings) }]);
    setName("");
  };
  return (
    <div className="presets">
      <input value={name} maxLength={LONGEST_PRESET_NAME} placeholder={words.presetName} aria-label={words.presetName} onChange={(event) => setName(event.target.value)} />
      <Button disabled={name.trim() === ""} onClick={save}>
        {words.savePreset}
      </Button>
      {presets.map((preset) => (
        <span key={preset.name} className="preset">
          {preset.name}
          <IconButton label={words.deletePreset(preset.name)} icon={<Trash2 />} onClick={() => setPresets(presets.filter((one) => one !== preset))} />
        </span>
      ))}
    </div>
  );
}
