import { Suspense, type ComponentProps, useEffect } from "react";
import { strings } from "../lib/strings";
import { late, tellNotFetched } from "../ui/late";
import type { SettingsDialog as Real } from "./SettingsDialog";

type Props = ComponentProps<typeof Real>;

const load = () => import("./SettingsDialog").then((file) => file.SettingsDialog);

/** Begins to fetch the dialog: the pointer or the focus is at what opens it. */
export const expectSettings = (): void => void load().catch(() => undefined);

const Loaded = late<Props>(load, function NoSettings({ onClose }) {
  useEffect(() => {
    tellNotFetched();
    onClose();
  }, [onClose]);
  return null;
});

const Loading = () => (
  <p className="part-loading" role="status">
    <span>{strings.loadingPage}</span>
  </p>
);

/** The dialog, fetched when it is first opened. */
export function SettingsDialog(props: Props) {
  return <Suspense fallback={<Loading />}>{props.open && <Loaded {...props} />}</Suspense>;
}
