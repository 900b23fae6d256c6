import { Select as Base } from "@base-ui/react/select";
import { Check, ChevronDown } from "lucide-react";

export interface Option {
  value: string;
  label: string;
  note?: string | undefined;
}

interface Props {
  label: string;
  value: string | null;
  options: readonly Option[];
  onChange: (value: string) => void;
  placeholder?: string;
  disabled?: boolean;
  className?: string;
}

export function Select({ label, value, options, onChange, placeholder = "", disabled = false, className = "" }: Props) {
  const chosen = options.find((option) => option.value === value);
  return (
    <Base.Root value={value} onValueChange={(next) => next !== null && onChange(next)} disabled={disabled} modal={false}>
      <Base.Trigger className={`select ${className}`} aria-label={label}>
        <Base.Value>{() => <span className="select-value">{chosen?.label ?? value ?? placeholder}</span>}</Base.Value>
        <Base.Icon className="select-icon">
          <ChevronDown />
        </Base.Icon>
      </Base.Trigger>
      <Base.Portal>
        <Base.Positioner className="positioner" sideOffset={4} align="start" collisionPadding={8} alignItemWithTrigger={false}>
          <Base.Popup className="menu select-popup">
            <Base.List>
              {options.map((option) => (
                <Base.Item key={option.value} value={option.value} className="menu-item">
                  <span className="menu-check">
                    <Base.ItemIndicator>
                      <Check />
                    </Base.ItemIndicator>
                  </span>
                  <span className="select-option">
                    <Base.ItemText>{option.label}</Base.ItemText>
                    {option.note !== undefined && <small>{option.note}</small>}
                  </span>
                </Base.Item>
              ))}
            </Base.List>
          </Base.Popup>
        </Base.Positioner>
      </Base.Portal>
    </Base.Root>
  );
}
