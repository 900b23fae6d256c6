import { TriangleAlert } from "lucide-react";
import { strings } from "../lib/strings";
import type { Failure } from "../store/records";
import { Button } from "../ui/Button";
import { failureText, needsKey } from "./failures";
import { askForKey } from "./KeyDialog";

/** Why an answer is not whole, and what to do. */
export function Failed({ failure, onRetry }: { failure: Failure; onRetry: () => void }) {
  return (
    <div className="failure" role="alert">
      <TriangleAlert aria-hidden="true" />
      <p>{failureText(failure)}</p>
      {needsKey(failure) && <Button onClick={askForKey}>{strings.errors.enterKey}</Button>}
      <Button onClick={onRetry}>{strings.errors.retry}</Button>
    </div>
  );
}
