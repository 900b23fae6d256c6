import { useState, type FormEvent } from "react";
import { create } from "zustand";
import { apiKey, storeApiKey } from "../api/key";
import { strings } from "../lib/strings";
import { loadModels } from "../store/models";
import { Button } from "../ui/Button";
import { Dialog } from "../ui/Dialog";
import { notify } from "../ui/toasts";

const useKeyDialog = create<{ open: boolean }>(() => ({ open: false }));
export const askForKey = (): void => useKeyDialog.setState({ open: true });
const close = (): void => useKeyDialog.setState({ open: false });

function KeyForm() {
  const [key, setKey] = useState(apiKey);
  const keep = (next: string, said: string) => {
    storeApiKey(next);
    notify({ text: said });
    close();
    void loadModels();
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    keep(key.trim(), strings.key.saved);
  };
  return (
    <form onSubmit={submit}>
      <label className="field">
        <span>{strings.key.label}</span>
        <input type="password" autoComplete="off" spellCheck={false} value={key} onChange={(event) => setKey(event.target.value)} />
      </label>
      <footer className="dialog-actions">
        <Button onClick={() => keep("", strings.key.forgotten)}>{strings.key.forget}</Button>
        <Button type="submit" look="primary">
          {strings.key.save}
        </Button>
      </footer>
    </form>
  );
}

export function KeyDialog() {
  const { open } = useKeyDialog();
  return (
    <Dialog open={open} onClose={close} title={strings.key.title} lead={strings.key.lead}>
      <KeyForm />
    </Dialog>
  );
}
