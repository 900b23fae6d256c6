import { strings } from "../lib/strings";
import { Button } from "../ui/Button";

/** Stands for a page whose code did not come. */
export function NotFetched() {
  return (
    <div className="missing" role="alert">
      <h1>{strings.errors.notFetchedTitle}</h1>
      <p>{strings.errors.notFetched}</p>
      <Button look="primary" onClick={() => location.reload()}>
        {strings.errors.reload}
      </Button>
    </div>
  );
}
