import { Fragment } from "react";
import { keysOf, type Shortcut } from "../lib/shortcuts";
import { strings } from "../lib/strings";
import { Dialog } from "../ui/Dialog";

const words = strings.shortcuts;
const ANYWHERE: Shortcut[] = ["newChat", "search", "message", "stop", "sidebar", "shortcuts"];

function List({ title, rows }: { title: string; rows: readonly (readonly [string, readonly string[]])[] }) {
  return (
    <section className="shortcuts">
      <h3>{title}</h3>
      <dl className="facts">
        {rows.map(([what, keys]) => (
          <div key={what}>
            <dt>{what}</dt>
            <dd>
              {keys.map((key, at) => (
                <Fragment key={key}>
                  {at > 0 && " "}
                  <kbd>{key}</kbd>
                </Fragment>
              ))}
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

export function ShortcutsDialog({ open, onClose }: { open: boolean; onClose: () => void }) {
  return (
    <Dialog open={open} onClose={onClose} title={words.title}>
      <List title={words.anywhere} rows={ANYWHERE.map((name) => [words.names[name], keysOf(name)])} />
      <List title={words.writing} rows={words.inMessages} />
    </Dialog>
  );
}
