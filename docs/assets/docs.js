// The theme's search dialog has no name for screen readers, and code that scrolls cannot be reached by keyboard.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
for (const box of document.querySelectorAll(".md-typeset pre > code, .md-typeset__scrollwrap, .notebook-output")) {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}
