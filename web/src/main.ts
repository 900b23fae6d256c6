/** The first frame is what stands in index.html; what makes the page work comes after it.
 *
 * Nothing large is fetched before that frame, so that on a slow line it has the line for itself. The libraries are
 * evaluated as they arrive, each in a task of its own, so that none holds up the reader for long.
 */
import "./styles/base.css";
import "./styles/kit.css";
import "./styles/shell.css";
import "./styles/chat.css";
import "./styles/pages.css";

/** A browser that reports no first frame has long drawn it then. */
const LONGEST_MS = 500;

/** Once the first frame is on the screen; at once where it shows nothing (public/first.js), or the page is hidden. */
const painted = (): Promise<void> =>
  new Promise((resolve) => {
    if (document.hidden || document.documentElement.dataset.first === undefined) return resolve();
    new PerformanceObserver(() => resolve()).observe({ type: "paint", buffered: true });
    setTimeout(resolve, LONGEST_MS);
  });

await painted();
const parts = await Promise.all([import("./app/start"), import("react-dom/client"), import("dexie")]).catch((error: unknown) => {
  // What a part throws while it is evaluated is told nowhere else.
  console.error(error);
  return null;
});
if (parts) parts[0].start();
else document.getElementById("not-started")?.removeAttribute("hidden");
