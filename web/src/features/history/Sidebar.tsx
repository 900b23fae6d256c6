import { useLiveQuery } from "dexie-react-hooks";
import { Boxes, ChartSpline, Columns2, MessageSquarePlus, Search } from "lucide-react";
import { useMemo, useState } from "react";
import { Link, useLocation } from "wouter";
import { ariaKeysOf, type Shortcut } from "../../lib/shortcuts";
import { strings } from "../../lib/strings";
import { db } from "../../store/db";
import { search } from "../../store/history";
import { showsRunsAlone, useModels } from "../../store/models";
import type { Conversation } from "../../store/records";
import { Entry } from "./Entry";
import { PageMenu } from "./PageMenu";

const words = strings.nav;
const DAY = 86_400_000;

function groupsOf(conversations: Conversation[], now: number): [string, Conversation[]][] {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  const groups: [string, Conversation[]][] = [
    [words.today, conversations.filter((one) => one.updated >= midnight)],
    [words.week, conversations.filter((one) => one.updated < midnight && one.updated >= midnight - 7 * DAY)],
    [words.older, conversations.filter((one) => one.updated < midnight - 7 * DAY)],
  ];
  return groups.filter(([, members]) => members.length > 0);
}

function useHistory(wanted: string) {
  const conversations = useLiveQuery(() => db.conversations.orderBy("updated").reverse().toArray(), []);
  const found = useLiveQuery(() => (wanted.trim() === "" ? Promise.resolve(null) : search(wanted)), [wanted]);
  return useMemo(() => (found ? conversations?.filter((one) => found.has(one.id)) : conversations), [conversations, found]);
}

function PageLink({ href, icon, shortcut, children }: { href: string; icon: React.ReactNode; shortcut?: Shortcut; children: string }) {
  const [place] = useLocation();
  return (
    <Link href={href} className="nav-link" aria-current={place === href ? "page" : undefined} aria-keyshortcuts={shortcut && ariaKeysOf(shortcut)}>
      {icon}
      {children}
    </Link>
  );
}

export function Sidebar({ close }: { close?: React.ReactNode }) {
  const [wanted, setWanted] = useState("");
  const [place] = useLocation();
  const [now] = useState(() => Date.now());
  const runs = useModels((state) => state.runs);
  const runsAlone = useModels(showsRunsAlone);
  const conversations = useHistory(wanted);
  // Where there is nobody to talk to, and nobody was.
  const nobody = runsAlone && wanted === "" && (conversations ?? []).length === 0;
  return (
    <div className="sidebar-inner">
      <header className="sidebar-head">
        <Link href="/" className="brand">
          <img src="/favicon.svg" alt="" width="26" height="26" />
          {strings.app}
        </Link>
        {close}
      </header>
      <nav aria-label={words.label}>
        {!runsAlone && (
          <>
            <PageLink href="/" icon={<MessageSquarePlus aria-hidden="true" />} shortcut="newChat">
              {words.new}
            </PageLink>
            <PageLink href="/compare" icon={<Columns2 aria-hidden="true" />}>
              {words.compare}
            </PageLink>
            <PageLink href="/info" icon={<Boxes aria-hidden="true" />}>
              {words.models}
            </PageLink>
          </>
        )}
        {runs && (
          <PageLink href="/runs" icon={<ChartSpline aria-hidden="true" />}>
            {words.runs}
          </PageLink>
        )}
        {!nobody && (
          <>
            <label className="search">
              <Search aria-hidden="true" />
              <input type="search" value={wanted} aria-label={words.search} aria-keyshortcuts={ariaKeysOf("search")} placeholder={words.search} onChange={(event) => setWanted(event.target.value)} />
            </label>
            <div className="history">
              {conversations?.length === 0 && <p className="history-empty">{wanted.trim() === "" ? words.empty : words.noMatch}</p>}
              {groupsOf(conversations ?? [], now).map(([name, members]) => (
                <section key={name} aria-label={name}>
                  <h2 aria-hidden="true">{name}</h2>
                  <ul>
                    {members.map((one) => (
                      <Entry key={one.id} conversation={one} current={place === `/c/${one.id}`} />
                    ))}
                  </ul>
                </section>
              ))}
            </div>
          </>
        )}
      </nav>
      <PageMenu />
    </div>
  );
}
