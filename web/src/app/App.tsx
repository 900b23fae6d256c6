import { CSPProvider } from "@base-ui/react/csp-provider";
import { Dialog } from "@base-ui/react/dialog";
import { PanelLeft, X } from "lucide-react";
import { Suspense, useEffect, useState } from "react";
import { Redirect, Route, Switch, useLocation } from "wouter";
import { ChatPage } from "../features/chat/ChatPage";
import { Sidebar } from "../features/history/Sidebar";
import { strings } from "../lib/strings";
import { readText, writeText } from "../lib/storage";
import { useMedia } from "../lib/useMedia";
import { KeyDialog } from "../parts/KeyDialog";
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

function Drawer({ open, onClose }: { open: boolean; onClose: () => void }) {
  return (
    <Dialog.Root open={open} onOpenChange={(now) => !now && onClose()}>
      <Dialog.Portal>
        <Dialog.Backdrop className="backdrop" />
        <Dialog.Popup className="drawer" aria-label={strings.nav.label}>
          <Sidebar close={<Dialog.Close render={<IconButton label={strings.nav.close} icon={<X />} />} />} />
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Shell() {
  const narrow = useMedia(NARROW);
  const [place] = useLocation();
  const [closed, setClosed] = useState(() => readText(CLOSED) === "closed");
  const [drawer, setDrawer] = useState(false);
  const [seen, setSeen] = useState(place);
  if (seen !== place) {
    setSeen(place);
    setDrawer(false);
  }
  const toggle = (now: boolean) => {
    setClosed(now);
    writeText(CLOSED, now ? "closed" : null);
  };
  return (
    <div className="shell">
      <a className="skip" href="#main">
        {strings.skip}
      </a>
      {narrow ? (
        <Drawer open={drawer} onClose={() => setDrawer(false)} />
      ) : (
        !closed && (
          <aside className="sidebar">
            <Sidebar close={<IconButton label={strings.nav.close} icon={<PanelLeft />} onClick={() => toggle(true)} />} />
          </aside>
        )
      )}
      <main id="main" tabIndex={-1}>
        {(narrow || closed) && (
          <IconButton className="open-sidebar" label={strings.nav.open} icon={<PanelLeft />} onClick={() => (narrow ? setDrawer(true) : toggle(false))} />
        )}
        <Pages />
      </main>
      <KeyDialog />
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
