import { Download, GitFork, MoreHorizontal, Pencil, Trash2 } from "lucide-react";
import { useState, type FormEvent } from "react";
import { Link, useLocation } from "wouter";
import { download } from "../../lib/download";
import { strings } from "../../lib/strings";
import { db } from "../../store/db";
import { deleteConversation, forkAt, renameConversation } from "../../store/history";
import type { Conversation } from "../../store/records";
import { exportAll } from "../../store/transfer";
import { IconButton } from "../../ui/Button";
import { Menu, MenuItem, MenuLine } from "../../ui/Menu";
import { notify } from "../../ui/toasts";

const words = strings.nav;

function Rename({ conversation, onDone }: { conversation: Conversation; onDone: () => void }) {
  const [title, setTitle] = useState(conversation.title);
  const save = (event?: FormEvent) => {
    event?.preventDefault();
    if (title.trim() !== "") void renameConversation(conversation.id, title.trim());
    onDone();
  };
  return (
    <form className="rename" onSubmit={save}>
      <input
        autoFocus
        maxLength={200}
        value={title}
        aria-label={words.rename}
        onFocus={(event) => event.target.select()}
        onChange={(event) => setTitle(event.target.value)}
        onBlur={() => save()}
        onKeyDown={(event) => event.key === "Escape" && onDone()}
      />
    </form>
  );
}

export function Entry({ conversation, current }: { conversation: Conversation; current: boolean }) {
  const [, navigate] = useLocation();
  const [renaming, setRenaming] = useState(false);
  const title = conversation.title === "" ? words.untitled : conversation.title;
  const fork = async () => {
    const leaf = conversation.leaf === null ? undefined : await db.messages.get(conversation.leaf);
    if (leaf) navigate(`/c/${(await forkAt(leaf, words.forked)).id}`);
  };
  const remove = async () => {
    const undo = await deleteConversation(conversation.id);
    if (current) navigate("/");
    notify({ text: strings.toast.deleted, action: { label: strings.toast.undo, run: () => void undo() } });
  };
  if (renaming) {
    return (
      <li>
        <Rename conversation={conversation} onDone={() => setRenaming(false)} />
      </li>
    );
  }
  return (
    <li className="entry">
      <Link href={`/c/${conversation.id}`} className="nav-link" aria-current={current ? "page" : undefined} dir="auto">
        <span className="entry-title">{title}</span>
      </Link>
      <Menu trigger={<IconButton className="entry-menu" label={words.menuOf(title)} icon={<MoreHorizontal />} />}>
        <MenuItem icon={<Pencil />} onClick={() => setRenaming(true)}>
          {words.rename}
        </MenuItem>
        <MenuItem icon={<GitFork />} onClick={() => void fork()}>
          {words.fork}
        </MenuItem>
        <MenuItem icon={<Download />} onClick={() => void exportAll(conversation.id).then((text) => download("conversation.json", text))}>
          {words.exportOne}
        </MenuItem>
        <MenuLine />
        <MenuItem icon={<Trash2 />} danger onClick={() => void remove()}>
          {words.delete}
        </MenuItem>
      </Menu>
    </li>
  );
}
