import { Download, Keyboard, KeyRound, Settings2, Trash2, Upload } from "lucide-react";
import { useRef, useState } from "react";
import { useLocation } from "wouter";
import { download } from "../../lib/download";
import { strings } from "../../lib/strings";
import { askForKey } from "../../parts/KeyDialog";
import { showShortcuts } from "../../parts/LazyShortcuts";
import { isFull } from "../../store/db";
import { deleteEverything } from "../../store/history";
import { usePreferences } from "../../store/preferences";
import { exportAll, importAll, NotAnExport } from "../../store/transfer";
import { Button } from "../../ui/Button";
import { Confirm } from "../../ui/Dialog";
import { Menu, MenuChoice, MenuItem, MenuLine } from "../../ui/Menu";
import { notify } from "../../ui/toasts";

const words = strings.menu;
const THEMES = [
  { value: "system", label: words.system },
  { value: "light", label: words.light },
  { value: "dark", label: words.dark },
] as const;

async function importFile(file: File): Promise<void> {
  try {
    const { conversations, presets } = await importAll(await file.text());
    notify({ text: strings.toast.imported(conversations, presets) });
  } catch (error) {
    const text = error instanceof NotAnExport ? strings.toast.notAnExport : isFull(error) ? strings.toast.full : String(error);
    notify({ text, problem: true });
  }
}

export function PageMenu() {
  const { theme, setTheme } = usePreferences();
  const [, navigate] = useLocation();
  const [deleting, setDeleting] = useState(false);
  const file = useRef<HTMLInputElement>(null);
  const removeAll = async () => {
    await deleteEverything();
    navigate("/");
    notify({ text: strings.toast.allDeleted });
  };
  return (
    <footer className="sidebar-foot">
      <Menu
        align="start"
        trigger={
          <Button look="quiet" className="page-menu">
            <Settings2 aria-hidden="true" />
            {strings.nav.more}
          </Button>
        }
      >
        <MenuChoice label={words.theme} value={theme} options={THEMES} onChange={setTheme} />
        <MenuLine />
        <MenuItem icon={<Download />} onClick={() => void exportAll().then((text) => download("tallyformer-conversations.json", text))}>
          {words.exportAll}
        </MenuItem>
        <MenuItem icon={<Upload />} onClick={() => file.current?.click()}>
          {words.importAll}
        </MenuItem>
        <MenuItem icon={<KeyRound />} onClick={askForKey}>
          {words.key}
        </MenuItem>
        <MenuItem icon={<Keyboard />} onClick={showShortcuts}>
          {words.shortcuts}
        </MenuItem>
        <MenuLine />
        <MenuItem icon={<Trash2 />} danger onClick={() => setDeleting(true)}>
          {words.deleteAll}
        </MenuItem>
      </Menu>
      <input
        ref={file}
        type="file"
        accept="application/json,.json"
        hidden
        aria-label={words.importAll}
        onChange={(event) => {
          const chosen = event.target.files?.[0];
          event.target.value = "";
          if (chosen) void importFile(chosen);
        }}
      />
      <Confirm
        open={deleting}
        title={strings.confirm.deleteAll}
        text={strings.confirm.deleteAllText}
        action={strings.confirm.delete}
        onConfirm={() => void removeAll()}
        onClose={() => setDeleting(false)}
      />
    </footer>
  );
}
