import { StrictMode, startTransition } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";

/** Draws the page, in slices that let the browser go on with other things. */
export function start(): void {
  const root = document.getElementById("root");
  if (!root) return;
  startTransition(() =>
    createRoot(root).render(
      <StrictMode>
        <App />
      </StrictMode>,
    ),
  );
}
