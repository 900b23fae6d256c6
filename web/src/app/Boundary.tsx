import { Component, type ReactNode } from "react";
import { strings } from "../lib/strings";
import { Button } from "../ui/Button";

/** A mistake of the page leaves a way out instead of a white screen. */
export class Boundary extends Component<{ children: ReactNode }, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError(): { failed: boolean } {
    return { failed: true };
  }

  override render(): ReactNode {
    if (!this.state.failed) return this.props.children;
    return (
      <main className="missing" role="alert">
        <h1>{strings.errors.crash}</h1>
        <p>{strings.errors.crashText}</p>
        <Button look="primary" onClick={() => location.reload()}>
          {strings.errors.reload}
        </Button>
      </main>
    );
  }
}
