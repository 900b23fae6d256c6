/** Draws at most once a frame, however often it is asked to. A hidden page gets no frames, but a timer. */
export function perFrame(draw: () => void): { ask: () => void; end: () => void } {
  let asked = false;
  let ended = false;
  const now = (): void => {
    asked = false;
    if (!ended) draw();
  };
  return {
    ask() {
      if (asked || ended) return;
      asked = true;
      if (document.hidden) setTimeout(now, 250);
      else requestAnimationFrame(now);
    },
    end() {
      ended = true;
    },
  };
}
