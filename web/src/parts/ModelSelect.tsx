import { count } from "../lib/format";
import { strings } from "../lib/strings";
import { useModels } from "../store/models";
import { Select } from "../ui/Select";

interface Props {
  value: string | null;
  onChange: (model: string) => void;
  label?: string;
  className?: string;
}

export function ModelSelect({ value, onChange, label = strings.model.choose, className = "" }: Props) {
  const cards = useModels((state) => state.cards);
  const options = cards.map((card) => ({
    value: card.id,
    label: card.id,
    note:
      card.status === "ready"
        ? card.context_length === null
          ? undefined
          : strings.model.context(count(card.context_length))
        : card.status === "failed"
          ? strings.model.failed
          : strings.model.loading,
  }));
  return (
    <Select
      label={label}
      value={value}
      options={options}
      onChange={onChange}
      placeholder={strings.model.none}
      disabled={cards.length === 0}
      className={className}
    />
  );
}
