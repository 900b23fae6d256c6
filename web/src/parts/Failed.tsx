import { TriangleAlert } from "lucide-react";
import { strings } from "../lib/strings";
import type { Failure } from "../store/records";
import { Button } from "../ui/Button";
import { failureText, needsKey } from "./failures";
import { askForKey } from "./KeyDialog";

interface Props {
  failure: Failure;
  /** Whether the answer can be continued where it ended. */
  continues?: boolean;
  onRetry: () => void;
}

/** Why an answer is not complete, and what to do. */
export function Failed({ failure, continues = false, onRetry }: Props) {
  return (
    <div className="failure" role="alert">
      <TriangleAlert aria-hidden="true" />
      <p>{failureText(failure, continues)}</p>
      {needsKey(failure) && <Button onClick={askForKey}>{strings.errors.enterKey}</Button>}
      <Button onClick={onRetry}>{strings.errors.retry}</Button>
    </div>
  );
}
