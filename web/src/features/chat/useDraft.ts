import { useState } from "react";
import { draftOf, keepDraft } from "../../store/drafts";

/** The question that is being written in a conversation, or in a new one. */
export function useDraft(conversation: string | null): [string, (text: string) => void] {
  const [draft, setDraft] = useState(() => ({ conversation, text: draftOf(conversation) }));
  if (draft.conversation !== conversation) setDraft({ conversation, text: draftOf(conversation) });
  const change = (text: string) => {
    keepDraft(conversation, text);
    setDraft({ conversation, text });
  };
  return [draft.text, change];
}
