import { TriangleAlert } from "lucide-react";
import type { ModelCard } from "../api/types";
import { strings } from "../lib/strings";
import { useModels } from "../store/models";
import { Button } from "../ui/Button";
import { failureText, needsKey } from "./failures";
import { askForKey } from "./KeyDialog";

/** Why no question can be asked yet: the server is away or asks for a key, or the model is not ready. */
export function ModelNotice({ card }: { card?: ModelCard | undefined }) {
  const failure = useModels((state) => state.failure);
  const text = failure ? failureText(failure) : card && card.status !== "ready" ? strings.model.notices[card.status] : null;
  if (text === null) return null;
  const wrong = failure !== null || card?.status === "failed";
  return (
    <div className={wrong ? "failure" : "failure failure-soon"} role={wrong ? "alert" : "status"}>
      {wrong && <TriangleAlert aria-hidden="true" />}
      <p>{text}</p>
      {failure && needsKey(failure) && <Button onClick={askForKey}>{strings.errors.enterKey}</Button>}
    </div>
  );
}
