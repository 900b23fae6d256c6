import { useEffect } from "react";
import { strings } from "./strings";

/** What the browser's tab, its history and a screen reader call the page. */
export function useTitle(title: string | undefined): void {
  useEffect(() => {
    document.title = title ? `${title} – ${strings.app}` : strings.app;
  }, [title]);
}
