import type { ModelCard } from "../api/types";
import { count, parameters } from "../lib/format";
import { strings } from "../lib/strings";
import { useModels } from "../store/models";
import { Select } from "../ui/Select";

interface Props {
  value: string | null;
  onChange: (model: string) => void;
  label?: string;
  className?: string;
}

const words = strings.model;

/** What one wants to know before choosing a model: its stage, its size, how much it reads. */
function noteOf(card: ModelCard): string {
  if (card.status !== "ready") return card.status === "failed" ? words.failed : words.loading;
  return [
    words.stages[card.id],
    card.parameters === null ? undefined : words.size(parameters(card.parameters)),
    card.context_length === null ? undefined : words.context(count(card.context_length)),
  ]
    .filter((part) => part !== undefined)
    .join(" · ");
}

export function ModelSelect({ value, onChange, label = words.choose, className = "" }: Props) {
  const cards = useModels((state) => state.cards);
  const options = cards.map((card) => ({ value: card.id, label: card.id, note: noteOf(card) }));
  return (
    <Select
      label={label}
      value={value}
      options={options}
      onChange={onChange}
      placeholder={words.none}
      disabled={cards.length === 0}
      className={className}
    />
  );
}
