import { lazy, type ComponentType, type LazyExoticComponent } from "react";
import { strings } from "../lib/strings";
import { notify } from "./toasts";

/** Says that a part of the page could not be loaded, and what to do. */
export const tellNotFetched = (): void =>
  notify({ text: strings.errors.notFetched, problem: true, stays: true, action: { label: strings.errors.reload, run: () => location.reload() } });

/** A part of the page that is fetched when it is first wanted; where it does not come, another stands for it. */
export const late = <P extends object>(
  fetch: () => Promise<ComponentType<P>>,
  instead: ComponentType<P>,
  onFailure: () => void = () => undefined,
): LazyExoticComponent<ComponentType<P>> =>
  lazy(() =>
    fetch().then(
      (part) => ({ default: part }),
      (error: unknown) => {
        // What it throws while it is evaluated is told nowhere else.
        console.error(error);
        onFailure();
        return { default: instead };
      },
    ),
  );
