import { Info } from "lucide-react";
import { count, duration, rate } from "../../lib/format";
import { strings } from "../../lib/strings";
import type { Message, Metrics } from "../../store/records";
import { IconButton } from "../../ui/Button";
import { Facts, Popover } from "../../ui/Popover";

const words = strings.message;

export function MetricsLine({ metrics }: { metrics: Metrics }) {
  const parts = [
    metrics.tokens === null ? null : words.tokens(count(metrics.tokens)),
    metrics.tokensPerSecond === null ? null : words.rate(rate(metrics.tokensPerSecond)),
    metrics.ttftMs === null ? null : words.ttft(duration(metrics.ttftMs)),
  ].filter((part) => part !== null);
  return <span className="metrics">{parts.join(" · ")}</span>;
}

export function AnswerDetails({ message }: { message: Message }) {
  const { metrics, settings } = message;
  if (!metrics) return null;
  const fact = (label: string, value: number | null | undefined, show: (n: number) => string): [string, string] | null =>
    value === null || value === undefined ? null : [label, show(value)];
  return (
    <Popover title={words.details} trigger={<IconButton label={words.details} icon={<Info />} />}>
      <Facts
        facts={[
          message.model === undefined ? null : [words.model, message.model],
          fact(words.prompt, metrics.promptTokens, (n) => words.tokens(count(n))),
          fact(words.answer, metrics.tokens, (n) => words.tokens(count(n))),
          metrics.leftOut > 0 ? [words.leftOut, words.tokens(count(metrics.leftOut))] : null,
          fact(words.firstToken, metrics.ttftMs, duration),
          fact(words.speed, metrics.tokensPerSecond, (n) => words.rate(rate(n))),
          fact(words.total, metrics.totalMs, duration),
          fact(words.temperature, settings?.temperature, String),
          fact(words.seed, settings?.seed, String),
        ]}
      />
    </Popover>
  );
}
