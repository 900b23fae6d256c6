import { useLiveQuery } from "dexie-react-hooks";
import { useMemo, useState } from "react";
import { db } from "../../store/db";
import type { Conversation, Message } from "../../store/records";
import { childrenOf, keepSame, pathTo } from "../../store/tree";
import { useUnsaved, withUnsaved } from "../../store/unsaved";

export interface Shown {
  /** undefined while it is read, null where there is none. */
  conversation: Conversation | null | undefined;
  path: Message[];
  children: ReadonlyMap<string | null, Message[]>;
}

const NONE: ReadonlyMap<string, Message> = new Map();

/** Keeps the records of the last time where nothing changed. */
function newCache(): (records: Message[]) => ReadonlyMap<string, Message> {
  let before = NONE;
  return (records) => (before = keepSame(before, records));
}

/** A conversation as it is in the database, now and after every change, of other tabs too. */
export function useConversation(id: string | null): Shown {
  const [same] = useState(newCache);
  const found = useLiveQuery(async () => {
    if (id === null) return { id, conversation: null, messages: NONE };
    const [conversation, records] = await Promise.all([db.conversations.get(id), db.messages.where("conversation").equals(id).toArray()]);
    return { id, conversation: conversation ?? null, messages: same(records) };
  }, [id, same]);
  const current = found?.id === id ? found : undefined;
  const ends = useUnsaved((state) => state.ends);
  const kept = current?.messages ?? NONE;
  const messages = useMemo(() => withUnsaved(kept, ends), [kept, ends]);
  const leaf = current?.conversation?.leaf ?? null;
  const children = useMemo(() => childrenOf(messages.values()), [messages]);
  const path = useMemo(() => pathTo(messages, leaf), [messages, leaf]);
  return { conversation: current?.conversation, path, children };
}
