import { lazy, Suspense, type ComponentProps } from "react";
import type { SettingsDialog as Real } from "./SettingsDialog";

const Loaded = lazy(() => import("./SettingsDialog").then((file) => ({ default: file.SettingsDialog })));

/** The dialog, fetched when it is first opened. */
export function SettingsDialog(props: ComponentProps<typeof Real>) {
  return (
    <Suspense fallback={null}>
      {props.open && <Loaded {...props} />}
    </Suspense>
  );
}
