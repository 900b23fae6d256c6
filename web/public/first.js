// Before the first paint: a dark page never flashes white, and what stands in index.html fits the page that comes.
var look = document.documentElement.dataset;
if (location.pathname === "/") look.first = "welcome";
try {
  var theme = localStorage.getItem("tallyformer.theme");
  if (theme === "light" || theme === "dark") look.theme = theme;
  if (localStorage.getItem("tallyformer.sidebar") === "closed") look.sidebar = "closed";
} catch {
  /* storage is closed to this page: as the system has it */
}
// A script that does not come, or cannot be run, would leave what stands in index.html alone.
addEventListener(
  "error",
  function (event) {
    var notice = document.getElementById("not-started");
    if (notice && event.target.tagName !== "IMG") notice.hidden = false;
  },
  true,
);
