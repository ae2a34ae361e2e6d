// What scrolls sideways can be reached by the Tab key, and then be scrolled by the arrow keys.
function reachable() {
  for (const box of document.querySelectorAll(".content .table-wrapper, .content pre")) {
    const scrolls = box.scrollWidth > box.clientWidth;
    const words = box.matches("pre") ? "Listing that scrolls sideways" : "Table that scrolls sideways";
    for (const [key, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", words]])
      if (scrolls) box.setAttribute(key, value);
      else box.removeAttribute(key);
  }
}
addEventListener("load", reachable);
addEventListener("resize", reachable);
