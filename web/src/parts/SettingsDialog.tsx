import { useId, useState } from "react";
import { strings } from "../lib/strings";
import { usePreferences } from "../store/preferences";
import { hasPreset, NUMBER_FIELDS, type NumberField, PRESETS, problemOf, type Settings, withPreset } from "../store/settings";
import { Button } from "../ui/Button";
import { Dialog } from "../ui/Dialog";
import { Select } from "../ui/Select";
import { notify } from "../ui/toasts";
import { PresetNames } from "./PresetNames";

const words = strings.settings;

interface FieldProps {
  field: NumberField;
  value: number | undefined;
  onChange: (value: number | undefined) => void;
}

function problemText(field: NumberField, typed: string): string | null {
  const problem = problemOf(field, typed);
  if (problem === null) return null;
  if (problem !== "range") return words.problems[problem];
  const range = field.above ? words.problems.above : words.problems.range;
  return range(String(field.low), String(field.high));
}

function NumberInput({ field, value, onChange }: FieldProps) {
  const id = useId();
  const [typed, setTyped] = useState(value === undefined ? "" : String(value));
  const [before, setBefore] = useState(value);
  if (value !== before) {
    // A preset changed it from outside.
    setBefore(value);
    if (typed.trim() === "" ? value !== undefined : Number(typed) !== value) setTyped(value === undefined ? "" : String(value));
  }
  const { label, help } = words.fields[field.name];
  const problem = problemText(field, typed);
  const change = (next: string) => {
    setTyped(next);
    if (problemOf(field, next) !== null) return;
    const number = next.trim() === "" ? undefined : Number(next);
    setBefore(number);
    onChange(number);
  };
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        inputMode={field.whole ? "numeric" : "decimal"}
        value={typed}
        placeholder={words.empty[field.name] ?? words.default}
        aria-invalid={problem !== null}
        aria-describedby={`${id}-help`}
        onChange={(event) => change(event.target.value)}
        autoComplete="off"
      />
      <p id={`${id}-help`} className={problem === null ? "field-help" : "field-problem"} role={problem === null ? undefined : "alert"}>
        {problem ?? help}
      </p>
    </div>
  );
}

function changed<K extends keyof Settings>(settings: Settings, name: K, value: Settings[K] | undefined): Settings {
  const next = { ...settings };
  if (value === undefined) Reflect.deleteProperty(next, name);
  else next[name] = value;
  return next;
}

interface FormProps {
  settings: Settings;
  onChange: (settings: Settings) => void;
}

function TextArea({ label, help, value, rows, onChange }: { label: string; help: string; value: string; rows: number; onChange: (text: string) => void }) {
  const id = useId();
  return (
    <div className="field field-wide">
      <label htmlFor={id}>{label}</label>
      <textarea id={id} dir="auto" rows={rows} value={value} aria-describedby={`${id}-help`} onChange={(event) => onChange(event.target.value)} />
      <p id={`${id}-help`} className="field-help">
        {help}
      </p>
    </div>
  );
}

function PresetChoice({ settings, onChange }: FormProps) {
  const own = usePreferences((state) => state.presets);
  const all = [
    ...PRESETS.map((preset) => ({ value: preset.key as string, label: words.presets[preset.key] as string, settings: preset.settings })),
    ...own.map((preset, at) => ({ value: `own-${at}`, label: preset.name, settings: preset.settings })),
  ];
  const now = all.find((preset) => hasPreset(settings, preset.settings));
  return (
    <Select
      label={words.preset}
      className="select-wide"
      value={now?.value ?? null}
      placeholder="—"
      options={all}
      onChange={(value) => {
        const preset = all.find((one) => one.value === value);
        if (preset) onChange(withPreset(settings, preset.settings));
      }}
    />
  );
}

function StopTexts({ settings, onChange }: FormProps) {
  const [typed, setTyped] = useState(settings.stop?.join("\n") ?? "");
  const change = (text: string) => {
    setTyped(text);
    const stop = text.split("\n").filter((line) => line !== "");
    onChange(changed(settings, "stop", stop.length > 0 ? stop : undefined));
  };
  return <TextArea label={words.stop.label} help={words.stop.help} rows={2} value={typed} onChange={change} />;
}

export function SettingsForm({ settings, onChange }: FormProps) {
  return (
    <div className="fields">
      <TextArea
        label={words.system.label}
        help={words.system.help}
        rows={3}
        value={settings.system ?? ""}
        onChange={(text) => onChange(changed(settings, "system", text === "" ? undefined : text))}
      />
      <div className="field field-wide">
        <span className="field-label">{words.preset}</span>
        <PresetChoice settings={settings} onChange={onChange} />
        <PresetNames settings={settings} />
      </div>
      {NUMBER_FIELDS.map((field) => (
        <NumberInput key={field.name} field={field} value={settings[field.name]} onChange={(value) => onChange(changed(settings, field.name, value))} />
      ))}
      <div className="field">
        <span className="field-label">{words.mode.label}</span>
        <Select
          label={words.mode.label}
          className="select-wide"
          value={settings.mode ?? null}
          placeholder={words.default}
          options={[
            { value: "combined", label: words.mode.combined },
            { value: "independent", label: words.mode.independent },
          ]}
          onChange={(mode) => onChange(changed(settings, "mode", mode === "independent" ? "independent" : "combined"))}
        />
        <p className="field-help">{words.mode.help}</p>
      </div>
      <label className="field field-check">
        <span>
          <input
            type="checkbox"
            checked={settings.probabilities ?? false}
            onChange={(event) => onChange(changed(settings, "probabilities", event.target.checked || undefined))}
          />
          {words.probabilities.label}
        </span>
        <small className="field-help">{words.probabilities.help}</small>
      </label>
      <StopTexts settings={settings} onChange={onChange} />
    </div>
  );
}

interface Props extends FormProps {
  open: boolean;
  onClose: () => void;
  title: string;
}

/** While it is open it holds the settings itself: what keeps them answers later than one types. */
export function SettingsDialog({ open, onClose, title, settings: given, onChange }: Props) {
  const setDefaults = usePreferences((state) => state.setDefaults);
  const [shown, setShown] = useState(0);
  const [settings, setSettings] = useState(given);
  const change = (next: Settings) => {
    setSettings(next);
    onChange(next);
  };
  return (
    <Dialog open={open} onClose={onClose} title={title} wide>
      <SettingsForm key={shown} settings={settings} onChange={change} />
      <footer className="dialog-actions">
        <Button
          onClick={() => {
            change({});
            setShown(shown + 1);
          }}
        >
          {words.reset}
        </Button>
        <Button
          onClick={() => {
            setDefaults(settings);
            notify({ text: words.saved });
          }}
        >
          {words.asDefault}
        </Button>
        <Button look="primary" onClick={onClose}>
          {words.close}
        </Button>
      </footer>
    </Dialog>
  );
}
