// A panel: a title, pictures upon each other, and axes in Hz and seconds. All panels show one view {t0, t1, f0, f1}, in
// seconds and Hz. Cells reach half-way to their neighbours, as in xaibench/grid.py: the first and last bin are half as high.
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});

  function make(tag, className, text) {
    const found = document.createElement(tag);
    if (className) found.className = className;
    if (text !== undefined) found.textContent = text;
    return found;
  }

  // Round numbers from low to high, about so many.
  function ticks(low, high, about) {
    const raw = (high - low) / about, power = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw * 0.999);
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; k++) found.push(+(k * step).toPrecision(10));
    return found;
  }

  // what: {title, label, small, interactive}. Give it `layers`, [{picture, alpha}], and `note` where there is no picture.
  function panel(what) {
    const element = make("figure", "xp-panel" + (what.small ? " xp-small" : ""));
    const title = make("figcaption", "", what.title || "");
    const frame = make("div", "xp-frame"), plot = make("div", "xp-plot"), canvas = make("canvas");
    const hz = make("div", "xp-y"), seconds = make("div", "xp-x"), note = make("p", "xp-note");
    [hz, seconds, canvas].forEach((part) => part.setAttribute("aria-hidden", "true"));
    plot.setAttribute("role", what.interactive ? "application" : "img");
    plot.setAttribute("aria-label", what.label || what.title || "");
    if (what.interactive) {
      plot.tabIndex = 0;
      plot.setAttribute("aria-roledescription", "spectrogram");
      plot.setAttribute("aria-describedby", "xp-hint");
    }
    plot.append(canvas, note, make("i", "xp-cross-t"), make("i", "xp-cross-f"), make("i", "xp-head-line"));
    frame.append(hz, plot, seconds);
    element.append(title, frame);
    const self = { element, plot, title, layers: [], note: "", seen: !what.small, draw, visible: null };

    function axis(place, low, high, about, unit, upward) {
      const key = [low, high, about].join();
      if (place.dataset.key === key) return;
      place.dataset.key = key;
      place.replaceChildren(
        ...ticks(low, high, about).map((value) => {
          const mark = make("span", "", String(value)), share = (100 * (value - low)) / (high - low);
          mark.style.setProperty(upward ? "bottom" : "left", share + "%");
          if (share > 93) mark.classList.add("xp-end");
          if (share < 7) mark.classList.add("xp-start");
          return mark;
        }),
        make("b", "", unit),
      );
    }

    // view: what part; grid and [F, T]: where cells lie.
    function draw(view, grid, shape) {
      note.textContent = self.note;
      note.hidden = !self.note;
      const wide = plot.clientWidth, tall = plot.clientHeight, dense = Math.min(window.devicePixelRatio || 1, 2);
      if (!wide || !tall) return;
      const width = Math.round(wide * dense), height = Math.round(tall * dense);
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, width, height);
      const column = grid.rate / grid.hop, row = grid.n_fft / grid.rate;
      const x = view.t0 * column + 0.5, w = (view.t1 - view.t0) * column;
      const y = shape[0] - (view.f1 * row + 0.5), h = (view.f1 - view.f0) * row;
      context.imageSmoothingEnabled = w > width || h > height; // shrunk, thin regions must not vanish
      context.imageSmoothingQuality = "medium";
      for (const layer of self.layers) {
        context.globalAlpha = layer.alpha;
        context.drawImage(layer.picture, x, y, w, h, 0, 0, width, height);
      }
      axis(hz, view.f0, view.f1, what.small ? 4 : Math.max(2, tall / 28), "Hz", true);
      axis(seconds, view.t0, view.t1, Math.max(2, wide / (what.small ? 75 : 60)), "s", false);
    }

    return self;
  }

  X.make = make;
  X.ticks = ticks;
  X.panel = panel;
})();
