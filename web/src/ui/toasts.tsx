import { Toast } from "@base-ui/react/toast";
import { X } from "lucide-react";
import { strings } from "../lib/strings";
import { IconButton } from "./Button";

const manager = Toast.createToastManager();

export interface Notice {
  text: string;
  problem?: boolean;
  /** It is there until it is closed. */
  stays?: boolean;
  action?: { label: string; run: () => void };
}

/** Says something at the edge of the page, and aloud. */
export function notify({ text, problem = false, stays = false, action }: Notice): void {
  const id = manager.add({
    title: text,
    type: problem ? "problem" : "info",
    // Of a high one the kit hides the buttons from screen readers, and keeps them in the order of the focus.
    priority: "low",
    timeout: stays ? 0 : problem || action ? 10_000 : 4000,
    ...(action
      ? {
          actionProps: {
            children: action.label,
            onClick: () => {
              manager.close(id);
              action.run();
            },
          },
        }
      : {}),
  });
}

function List() {
  const { toasts } = Toast.useToastManager();
  return toasts.map((toast) => (
    <Toast.Root key={toast.id} toast={toast} className={`toast toast-${toast.type ?? "info"}`} swipeDirection="down">
      <Toast.Content className="toast-content">
        <Toast.Title className="toast-text" render={<p />} />
        <Toast.Action className="button button-quiet toast-action" />
        <Toast.Close render={<IconButton label={strings.toast.close} icon={<X />} />} />
      </Toast.Content>
    </Toast.Root>
  ));
}

export function Toasts() {
  return (
    <Toast.Provider toastManager={manager}>
      <Toast.Portal>
        <Toast.Viewport className="toasts" aria-label={strings.toast.region}>
          <List />
        </Toast.Viewport>
      </Toast.Portal>
    </Toast.Provider>
  );
}
