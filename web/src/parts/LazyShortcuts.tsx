import { Suspense, useEffect } from "react";
import { create } from "zustand";
import { useShortcut } from "../lib/useShortcut";
import { late, tellNotFetched } from "../ui/late";

const useOpen = create<{ open: boolean }>(() => ({ open: false }));
export const showShortcuts = (): void => useOpen.setState({ open: true });
const close = (): void => useOpen.setState({ open: false });

const Loaded = late<{ open: boolean; onClose: () => void }>(
  () => import("./ShortcutsDialog").then((file) => file.ShortcutsDialog),
  function NoList({ onClose }) {
    useEffect(() => {
      tellNotFetched();
      onClose();
    }, [onClose]);
    return null;
  },
);

/** The list of shortcuts, fetched when it is first opened. */
export function Shortcuts() {
  const { open } = useOpen();
  useShortcut("shortcuts", showShortcuts);
  return <Suspense>{open && <Loaded open onClose={close} />}</Suspense>;
}
