// The switch between light and dark: as the system, light, dark. The choice is kept where the browser lets a page keep it.
(function () {
  "use strict";
  var ways = ["system", "light", "dark"];
  var words = { system: "as the system", light: "light", dark: "dark" };
  var signs = { system: "\u25d0", light: "\u2600", dark: "\u263e" };
  var button = document.getElementById("theme");

  function kept() {
    try { return localStorage.getItem("xaibench-theme") || "system"; } catch (e) { return "system"; } // storage may be forbidden
  }

  function show(way) {
    if (way === "system") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", way);
    button.textContent = signs[way];
    button.setAttribute("aria-label", "Colours: " + words[way]);
    button.title = "Colours: " + words[way];
    document.dispatchEvent(new CustomEvent("xaibench-theme"));
  }

  var way = ways.indexOf(kept()) < 0 ? "system" : kept();
  button.hidden = false;
  show(way);
  button.addEventListener("click", function () {
    way = ways[(ways.indexOf(way) + 1) % ways.length];
    try { localStorage.setItem("xaibench-theme", way); } catch (e) { /* then it holds for this page only */ }
    show(way);
  });
})();
