import { SlidersHorizontal } from "lucide-react";
import { useEffect, useMemo, useRef, useState } from "react";
import { Link, useLocation } from "wouter";
import type { ModelCard } from "../../api/types";
import { copyText } from "../../lib/clipboard";
import { strings } from "../../lib/strings";
import { useTitle } from "../../lib/useTitle";
import { expectMarkdown } from "../../markdown/Markdown";
import { Composer } from "../../parts/Composer";
import { ContextBar } from "../../parts/ContextBar";
import { ModelNotice } from "../../parts/ModelNotice";
import { ModelSelect } from "../../parts/ModelSelect";
import { expectSettings, SettingsDialog } from "../../parts/LazySettings";
import { useTokenCount } from "../../parts/useTokenCount";
import { stop } from "../../store/answering";
import { deleteMessage, forkAt } from "../../store/history";
import { cardOf, useModels } from "../../store/models";
import { usePreferences } from "../../store/preferences";
import type { Message } from "../../store/records";
import type { Settings } from "../../store/settings";
import { IconButton } from "../../ui/Button";
import { Confirm } from "../../ui/Dialog";
import { notify } from "../../ui/toasts";
import { answerTo, continueAnswer, editQuestion, rewriteAnswer, send, setModel, setSettings, turnsOf } from "./actions";
import { Announcer } from "./Announcer";
import { Thread, type Actions } from "./Thread";
import { useConversation } from "./useConversation";
import { useDraft } from "./useDraft";
import { useUnseen } from "./useUnseen";
import { Welcome } from "./Welcome";

interface Chosen {
  model: string | null;
  card: ModelCard | undefined;
  ready: boolean;
  context: number | null;
  settings: Settings;
}

function useChosen(conversation: ReturnType<typeof useConversation>["conversation"], draftSettings: Settings | null): Chosen {
  const cards = useModels((state) => state.cards);
  const { model: preferred, defaults } = usePreferences();
  const card = cardOf(cards, conversation?.model ?? preferred);
  const model = conversation?.model ?? card?.id ?? null;
  const same = card?.id === model;
  return {
    model,
    card: same ? card : undefined,
    ready: same && card?.status === "ready",
    context: same ? (card?.context_length ?? null) : null,
    settings: conversation?.settings ?? draftSettings ?? defaults,
  };
}

/** Actions that never change, and yet use what is chosen now. */
function useActions(chosen: Chosen, remove: (message: Message) => void, path: Message[]): Actions {
  const [, navigate] = useLocation();
  const now = useRef({ chosen, path });
  useEffect(() => {
    now.current = { chosen, path };
  });
  return useMemo(() => {
    const withModel = (work: (model: string, settings: Settings) => Promise<unknown>) => {
      const { model, settings } = now.current.chosen;
      if (model !== null) void work(model, settings);
    };
    return {
      edit: (message, text) => withModel((model, settings) => editQuestion(message, text, model, settings)),
      rewrite: (message, text) => void rewriteAnswer(message, text),
      regenerate: (message) => {
        const question = now.current.path.find((one) => one.id === message.parent);
        if (question) withModel((model, settings) => answerTo(question, model, settings));
      },
      continue: (message) => withModel((model, settings) => continueAnswer(message, model, settings)),
      copy: (message) =>
        void copyText(message.content).then((done) =>
          notify(done ? { text: strings.message.copied } : { text: strings.message.copyFailed, problem: true }),
        ),
      fork: (message) => void forkAt(message, strings.nav.forked).then((fork) => navigate(`/c/${fork.id}`)),
      remove,
      turnedRef: { current: null },
    };
  }, [navigate, remove]);
}

function Missing() {
  return (
    <div className="missing">
      <h1>{strings.missing.title}</h1>
      <p>{strings.missing.text}</p>
      <Link href="/" className="button button-primary">
        {strings.missing.back}
      </Link>
    </div>
  );
}

export function ChatPage({ id }: { id: string | null }) {
  const [, navigate] = useLocation();
  const { conversation, path, children } = useConversation(id);
  const [text, setText] = useDraft(id);
  const [draftSettings, setDraftSettings] = useState<Settings | null>(null);
  const [settingsOpen, setSettingsOpen] = useState(false);
  const [removing, setRemoving] = useState<Message | null>(null);
  const preferModel = usePreferences((state) => state.setModel);
  const chosen = useChosen(conversation, draftSettings);
  const actions = useActions(chosen, setRemoving, path);
  const last = path.at(-1);
  const answering = last?.status === "streaming";
  const draft = text.trim() === "" ? [] : [{ role: "user" as const, content: text }];
  const system = chosen.settings.system?.trim() ? [{ role: "system" as const, content: chosen.settings.system }] : [];
  const used = useTokenCount(chosen.model, chosen.ready && !answering, [...system, ...turnsOf(path), ...draft]);
  const unseen = useUnseen(chosen.model, path);

  const missing = id !== null && conversation === null;
  // Until it has been read, a question would begin another one.
  const canAsk = chosen.model !== null && (id === null || conversation !== undefined);
  useTitle(missing ? strings.missing.title : conversation?.title);

  if (missing) return <Missing />;
  const ask = (question: string) => {
    if (!canAsk || chosen.model === null) return;
    expectMarkdown();
    setText("");
    const sending = { conversation: conversation ?? null, model: chosen.model, settings: chosen.settings, text: question, parent: last?.id ?? null };
    void send(sending).then((home) => {
      if (home && home.id !== id) {
        setDraftSettings(null);
        navigate(`/c/${home.id}`);
      }
      if (!home) setText(question);
    });
  };
  return (
    <div className="chat">
      {id !== null && <h1 className="visually-hidden">{conversation?.title ?? strings.nav.new}</h1>}
      {id === null ? <Welcome card={chosen.card} onAsk={ask} /> : <Thread key={id} path={path} versions={children} actions={actions} unseen={unseen} />}
      <Announcer key={`said-${id ?? ""}`} last={last} />
      <div className="dock">
        <ModelNotice card={chosen.card} />
        <Composer
          text={text}
          onText={(draft) => {
            expectMarkdown();
            setText(draft);
          }}
          onSend={() => ask(text)}
          onStop={() => last && void stop(last.id)}
          answering={answering}
          disabled={!canAsk}
          focusOn={id ?? "new"}
        >
          <ModelSelect
            value={chosen.model}
            onChange={(model) => {
              preferModel(model);
              if (conversation) void setModel(conversation, model);
            }}
          />
          <IconButton label={strings.settings.open} icon={<SlidersHorizontal />} onPointerEnter={expectSettings} onFocus={expectSettings} onClick={() => setSettingsOpen(true)} />
          <ContextBar used={used} all={chosen.context} longest={chosen.settings.max_tokens} />
        </Composer>
        <p className="notice">{strings.notice}</p>
      </div>
      <SettingsDialog
        open={settingsOpen}
        onClose={() => setSettingsOpen(false)}
        title={strings.settings.title}
        settings={chosen.settings}
        onChange={(settings) => {
          if (conversation) void setSettings(conversation, settings);
          else setDraftSettings(settings);
        }}
      />
      <Confirm
        open={removing !== null}
        title={strings.confirm.deleteMessage}
        action={strings.confirm.delete}
        onConfirm={() => removing && void deleteMessage(removing)}
        onClose={() => setRemoving(null)}
      />
    </div>
  );
}
