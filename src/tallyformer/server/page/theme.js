// Before the first paint, so that a dark page never flashes white.
try {
  var theme = localStorage.getItem("tallyformer.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  /* storage is closed to this page: the system's theme it is */
}
