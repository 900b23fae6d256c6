import { Copy, GitFork, MoreHorizontal, Pencil, Trash2 } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { strings } from "../../lib/strings";
import type { Message } from "../../store/records";
import { IconButton } from "../../ui/Button";
import { Menu, MenuItem } from "../../ui/Menu";
import { Branches } from "./Branches";
import { Editor } from "./Editor";
import type { Actions } from "./Thread";

const words = strings.message;

interface Props {
  message: Message;
  siblings: readonly Message[];
  actions: Actions;
}

export function Question({ message, siblings, actions }: Props) {
  const [editing, setEditing] = useState(false);
  const edit = useRef<HTMLButtonElement>(null);
  const cancelled = useRef(false);
  useEffect(() => {
    if (cancelled.current && !editing) edit.current?.focus();
    cancelled.current = false;
  }, [editing]);
  if (editing) {
    return (
      <Editor
        text={message.content}
        label={words.editLabel}
        save={words.saveEdit}
        onCancel={() => {
          cancelled.current = true;
          setEditing(false);
        }}
        onSave={(text) => {
          setEditing(false);
          actions.edit(message, text);
        }}
      />
    );
  }
  return (
    <>
      <div className="bubble" dir="auto">
        {message.content}
      </div>
      <div className="message-tools">
        <Branches message={message} siblings={siblings} turnedRef={actions.turnedRef} />
        <IconButton ref={edit} label={words.edit} icon={<Pencil />} onClick={() => setEditing(true)} />
        <IconButton label={words.copy} icon={<Copy />} onClick={() => actions.copy(message)} />
        <Menu trigger={<IconButton label={words.more} icon={<MoreHorizontal />} />}>
          <MenuItem icon={<GitFork />} onClick={() => actions.fork(message)}>
            {words.fork}
          </MenuItem>
          <MenuItem icon={<Trash2 />} danger onClick={() => actions.remove(message)}>
            {words.delete}
          </MenuItem>
        </Menu>
      </div>
    </>
  );
}
