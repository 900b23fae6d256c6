/** What can have the focus, and has a place on the screen. */
const FOCUSABLE = ":is(a[href], button, input, textarea, select, [tabindex]:not([tabindex='-1'])):not(:disabled)";

/** Its ancestors, the nearest first. They are remembered, as a removed element has none. */
function ancestorsOf(element: Element): Element[] {
  const found: Element[] = [];
  for (let at = element.parentElement; at; at = at.parentElement) found.push(at);
  return found;
}

/** Where the focus goes instead: the nearest region that is left, if it takes it, or the first thing in it that does. */
export function refugeOf(ancestors: readonly Element[]): HTMLElement | null {
  for (const element of ancestors) {
    if (!element.isConnected || element === document.body) continue;
    const inside = element.matches(FOCUSABLE) ? element : element.querySelector(FOCUSABLE);
    if (inside instanceof HTMLElement) return inside;
  }
  return null;
}

/** Moves the focus to the nearest region where what had it goes away: a deleted message, an entry, a dialog's opener.
 *
 * Otherwise it would be lost at the top of the page, and with it the place of whoever works with the keyboard.
 * Returns what ends it.
 */
export function keepFocus(root: Element): () => void {
  let last: Element | null = null;
  let home: readonly Element[] = [];
  const onFocus = ({ target }: FocusEvent) => {
    if (!(target instanceof Element)) return;
    last = target;
    // What lies above the page is opened from it, and gone with its focus.
    if (root.contains(target)) home = [target, ...ancestorsOf(target)];
  };
  const onPointer = ({ target }: PointerEvent) => {
    // A click beside everything gives the focus up.
    if (target instanceof Element && !target.closest(FOCUSABLE)) last = null;
  };
  const restore = () => {
    if (last?.isConnected === false && document.activeElement === document.body) refugeOf(home)?.focus({ preventScroll: true });
  };
  const observer = new MutationObserver(() => {
    // Two frames: a dialog that closes gives the focus back by itself, where it can.
    if (last?.isConnected === false) requestAnimationFrame(() => requestAnimationFrame(restore));
  });
  observer.observe(document.body, { childList: true, subtree: true });
  document.addEventListener("focusin", onFocus);
  document.addEventListener("pointerdown", onPointer);
  return () => {
    observer.disconnect();
    document.removeEventListener("focusin", onFocus);
    document.removeEventListener("pointerdown", onPointer);
  };
}
