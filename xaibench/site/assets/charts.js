// Draws a page's plotly figures when they come into view, in the page's own colours, and again when the theme changes.
(function () {
  "use strict";
  var places = Array.prototype.slice.call(document.querySelectorAll("[data-plot]"));
  if (!places.length || !window.Plotly) return;
  var still = window.matchMedia && window.matchMedia("(max-width: 40rem)").matches; // a finger scrolls, it does not zoom

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  }

  function painted(value) { // a copy with `var:name` put in
    if (typeof value === "string") return value.slice(0, 4) === "var:" ? colour(value.slice(4)) : value;
    if (Array.isArray(value)) return value.map(painted);
    if (value && typeof value === "object") {
      var copy = {};
      Object.keys(value).forEach(function (key) { copy[key] = painted(value[key]); });
      return copy;
    }
    return value;
  }

  function axis(given) {
    var own = { gridcolor: colour("line"), zerolinecolor: colour("muted"), linecolor: colour("line"), tickfont: { size: 11 },
                fixedrange: still };
    return Object.assign(own, given || {});
  }

  function draw(place) {
    var figure = painted(JSON.parse(document.getElementById(place.dataset.plot).textContent));
    var bottom = figure.layout.xaxis && figure.layout.xaxis.side === "top" ? 12 : 46;
    var layout = Object.assign({ margin: { l: 56, r: 14, t: 12, b: bottom } }, figure.layout, {
      height: Number(place.dataset.height), autosize: true, dragmode: still ? false : "zoom",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
      hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("line"), font: { color: colour("ink") }, align: "left" },
      xaxis: axis(figure.layout.xaxis), yaxis: axis(figure.layout.yaxis)
    });
    var config = { responsive: true, displaylogo: false, displayModeBar: false, showTips: false };
    window.Plotly.react(place, figure.data, layout, config);
    place.dataset.drawn = "yes";
  }

  places.forEach(function (place) { place.style.minHeight = place.dataset.height + "px"; });
  if ("IntersectionObserver" in window) {
    var watch = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (!entry.isIntersecting) return;
        watch.unobserve(entry.target);
        draw(entry.target);
      });
    }, { rootMargin: "300px" });
    places.forEach(function (place) { watch.observe(place); });
  } else places.forEach(draw);

  function again() { places.forEach(function (place) { if (place.dataset.drawn) draw(place); }); }
  document.addEventListener("xaibench-theme", again);
  if (window.matchMedia) window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  window.addEventListener("beforeprint", function () { places.forEach(function (place) { if (!place.dataset.drawn) draw(place); }); });
})();
