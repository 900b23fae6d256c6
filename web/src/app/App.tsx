import { CSPProvider } from "@base-ui/react/csp-provider";
import { Dialog } from "@base-ui/react/dialog";
import { PanelLeft, X } from "lucide-react";
import { Suspense, useEffect, useRef, useState } from "react";
import { flushSync } from "react-dom";
import { Redirect, Route, Switch, useLocation } from "wouter";
import { ChatPage } from "../features/chat/ChatPage";
import { Sidebar } from "../features/history/Sidebar";
import { strings } from "../lib/strings";
import { readText, writeText } from "../lib/storage";
import { useMedia } from "../lib/useMedia";
import { useShortcut } from "../lib/useShortcut";
import { KeyDialog } from "../parts/KeyDialog";
import { Shortcuts } from "../parts/LazyShortcuts";
import { loadModels, showsRunsAlone, useModels } from "../store/models";
import { ownedAnswers } from "../store/owned";
import { recoverInterrupted } from "../store/recovery";
import { IconButton } from "../ui/Button";
import { late } from "../ui/late";
import { Toasts } from "../ui/toasts";
import { Boundary } from "./Boundary";
import { keepFocus } from "./keepFocus";
import { NotFetched } from "./NotFetched";

// Fetched when they are first opened: the first load is that of a chat.
const ComparePage = late(() => import("../features/compare/ComparePage").then((file) => file.ComparePage), NotFetched);
const ModelsPage = late(() => import("../features/models/ModelsPage").then((file) => file.ModelsPage), NotFetched);
const RunsPage = late(() => import("../features/runs/RunsPage").then((file) => file.RunsPage), NotFetched);

const NARROW = "(max-width: 860px)";
const CLOSED = "tallyformer.sidebar";
/** How often answers are looked for whose tab was closed. */
const RECOVER_MS = 2000;

function Pages() {
  const runsAlone = useModels(showsRunsAlone);
  return (
    <Suspense fallback={<p className="page-loading">{strings.loadingPage}</p>}>
      <Switch>
        <Route path="/compare">
          <ComparePage />
        </Route>
        <Route path="/info">
          <ModelsPage />
        </Route>
        <Route path="/runs">
          <RunsPage />
        </Route>
        <Route path="/c/:id">{({ id }) => <ChatPage id={id} />}</Route>
        <Route>{runsAlone ? <Redirect to="/runs" replace /> : <ChatPage id={null} />}</Route>
      </Switch>
    </Suspense>
  );
}

const BOX = ".composer textarea";
const SEARCH = "input[type='search']";

const focusOn = (wanted: string): void => document.querySelector<HTMLElement>(wanted)?.focus();

/** @param searching whether one opened it to search. */
function Drawer({ open, searching, onClose }: { open: boolean; searching: boolean; onClose: () => void }) {
  const popup = useRef<HTMLDivElement>(null);
  return (
    <Dialog.Root open={open} onOpenChange={(now) => !now && onClose()}>
      <Dialog.Portal>
        <Dialog.Backdrop className="backdrop" />
        <Dialog.Popup ref={popup} className="drawer" aria-label={strings.nav.label} initialFocus={() => (searching && popup.current?.querySelector<HTMLElement>(SEARCH)) || true}>
          <Sidebar close={<Dialog.Close render={<IconButton label={strings.nav.close} icon={<X />} />} />} />
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Shell() {
  const narrow = useMedia(NARROW);
  const [place, navigate] = useLocation();
  const [closed, setClosed] = useState(() => readText(CLOSED) === "closed");
  const [drawer, setDrawer] = useState<"closed" | "open" | "searching">("closed");
  const [seen, setSeen] = useState(place);
  if (seen !== place) {
    setSeen(place);
    setDrawer("closed");
  }
  const toggle = (now: boolean) => {
    setClosed(now);
    writeText(CLOSED, now ? "closed" : null);
  };
  const runsAlone = useModels(showsRunsAlone);
  useShortcut(
    "newChat",
    runsAlone
      ? null
      : () => {
          navigate("/");
          focusOn(BOX);
        },
  );
  useShortcut("message", () => focusOn(BOX));
  useShortcut("sidebar", () => (narrow ? setDrawer("open") : toggle(!closed)));
  useShortcut("search", () => {
    if (narrow) return setDrawer("searching");
    flushSync(() => toggle(false));
    focusOn(SEARCH);
  });
  return (
    <div className="shell">
      <a className="skip" href="#main">
        {strings.skip}
      </a>
      {narrow ? (
        <Drawer open={drawer !== "closed"} searching={drawer === "searching"} onClose={() => setDrawer("closed")} />
      ) : (
        !closed && (
          <aside className="sidebar">
            <Sidebar close={<IconButton label={strings.nav.close} icon={<PanelLeft />} onClick={() => toggle(true)} />} />
          </aside>
        )
      )}
      <main id="main" tabIndex={-1}>
        {(narrow || closed) && (
          <IconButton className="open-sidebar" label={strings.nav.open} icon={<PanelLeft />} onClick={() => (narrow ? setDrawer("open") : toggle(false))} />
        )}
        <Pages />
      </main>
      <KeyDialog />
      <Shortcuts />
      <Toasts />
    </div>
  );
}

export function App() {
  useEffect(() => {
    void loadModels();
    const settled = (work: Promise<unknown>) => void work.catch(() => undefined);
    settled(recoverInterrupted(ownedAnswers()));
    const timer = window.setInterval(() => settled(recoverInterrupted()), RECOVER_MS);
    const online = () => void loadModels();
    const endKeeping = keepFocus(document.getElementById("root") ?? document.body);
    window.addEventListener("online", online);
    return () => {
      endKeeping();
      window.clearInterval(timer);
      window.removeEventListener("online", online);
    };
  }, []);
  return (
    <CSPProvider disableStyleElements>
      <Boundary>
        <Shell />
      </Boundary>
    </CSPProvider>
  );
}
