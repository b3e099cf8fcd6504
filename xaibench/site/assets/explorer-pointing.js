// Pointer and keys over a panel: a cursor, zooming and moving. Every change is handed on, nothing is drawn here but the
// frame of a selection. `desk` has view, whole, grid, shape; look(view), point(f, t) in cells, leave().
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});
  const FEWEST = 4; // cells across the closest view
  const clamp = (x, low, high) => Math.max(low, Math.min(high, x));

  // A view no larger than the whole and no smaller than a few cells, within the whole.
  function within(view, whole, grid) {
    const fit = (low, high, first, last, least) => {
      const length = clamp(high - low, Math.min(least, last - first), last - first);
      const start = clamp((low + high - length) / 2, first, last - length);
      return [start, start + length];
    };
    const [t0, t1] = fit(view.t0, view.t1, whole.t0, whole.t1, (FEWEST * grid.hop) / grid.rate);
    const [f0, f1] = fit(view.f0, view.f1, whole.f0, whole.f1, (FEWEST * grid.rate) / grid.n_fft);
    return { t0, t1, f0, f1 };
  }

  // The view `factor` times as large, with the point (t, f) where it is. along: "t", "f" or both.
  function zoomed(view, factor, t, f, along) {
    const part = (low, high, at, name) =>
      along && along !== name ? [low, high] : [at - (at - low) * factor, at + (high - at) * factor];
    const [t0, t1] = part(view.t0, view.t1, t, "t"), [f0, f1] = part(view.f0, view.f1, f, "f");
    return { t0, t1, f0, f1 };
  }

  const moved = (view, dt, df) => ({ t0: view.t0 + dt, t1: view.t1 + dt, f0: view.f0 + df, f1: view.f1 + df });
  const isWhole = (v, w) => v.t1 - v.t0 > 0.999 * (w.t1 - w.t0) && v.f1 - v.f0 > 0.999 * (w.f1 - w.f0);

  function attach(plot, desk, small) {
    const fingers = new Map();
    let start = null, box = null, pinch = 0;

    const at = (event) => {
      const area = plot.getBoundingClientRect();
      const x = clamp((event.clientX - area.left) / area.width, 0, 1);
      const y = clamp((event.clientY - area.top) / area.height, 0, 1), v = desk.view;
      return { x, y, t: v.t0 + x * (v.t1 - v.t0), f: v.f1 - y * (v.f1 - v.f0) };
    };
    const cell = (p, g) => [Math.round((p.f * g.n_fft) / g.rate), Math.round((p.t * g.rate) / g.hop)];
    const point = (p) => desk.point(...cell(p, desk.grid));

    function drop() {
      if (box) box.remove();
      start = box = null;
    }

    function frame(p) {
      if (!box) plot.append((box = X.make("i", "xp-box")));
      box.style.left = 100 * Math.min(p.x, start.x) + "%";
      box.style.top = 100 * Math.min(p.y, start.y) + "%";
      box.style.width = 100 * Math.abs(p.x - start.x) + "%";
      box.style.height = 100 * Math.abs(p.y - start.y) + "%";
    }

    // Two fingers: as far apart as they were, the view is as it was.
    function spread() {
      const [a, b] = [...fingers.values()];
      return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1;
    }

    plot.addEventListener("pointerdown", (event) => {
      if (event.button || !desk.view) return;
      fingers.set(event.pointerId, event);
      if (fingers.size === 2) pinch = spread();
      start = { ...at(event), view: desk.view, pan: event.shiftKey || event.pointerType === "touch" };
      plot.setPointerCapture(event.pointerId);
      point(start);
    });
    plot.addEventListener("pointermove", (event) => {
      if (!desk.view) return;
      const p = at(event);
      if (fingers.has(event.pointerId)) fingers.set(event.pointerId, event);
      if (fingers.size === 2) {
        const now = spread();
        desk.look(zoomed(desk.view, pinch / now, p.t, p.f));
        pinch = now;
      } else if (start && start.pan) {
        const v = start.view;
        desk.look(moved(v, (start.x - p.x) * (v.t1 - v.t0), (p.y - start.y) * (v.f1 - v.f0)));
      } else if (start && Math.hypot(p.x - start.x, p.y - start.y) > 0.02) frame(p);
      if (fingers.size < 2) point(p);
    });
    plot.addEventListener("pointerup", (event) => {
      fingers.delete(event.pointerId);
      if (box && start) {
        const p = at(event), rising = (a, b) => a - b;
        const [t0, t1] = [start.t, p.t].sort(rising), [f0, f1] = [start.f, p.f].sort(rising);
        // A flat or thin frame zooms along one axis only.
        const wide = Math.abs(p.x - start.x) > 0.03, tall = Math.abs(p.y - start.y) > 0.06, v = desk.view;
        desk.look({ t0: wide ? t0 : v.t0, t1: wide ? t1 : v.t1, f0: tall ? f0 : v.f0, f1: tall ? f1 : v.f1 });
      }
      drop();
    });
    plot.addEventListener("pointercancel", (event) => {
      fingers.delete(event.pointerId);
      drop();
    });
    plot.addEventListener("pointerleave", () => desk.leave());
    plot.addEventListener("dblclick", () => desk.view && desk.look(desk.whole));
    plot.addEventListener(
      "wheel",
      (event) => {
        // The page scrolls as ever over small panels (unless Ctrl is held, as pinching a touchpad does) and at the far end.
        if (!desk.view || (small && !event.ctrlKey) || (event.deltaY > 0 && isWhole(desk.view, desk.whole))) return;
        event.preventDefault();
        const p = at(event), factor = Math.pow(1.0018, clamp(event.deltaY * (event.deltaMode ? 30 : 1), -240, 240));
        desk.look(zoomed(desk.view, factor, p.t, p.f, event.shiftKey ? "t" : event.altKey ? "f" : ""));
      },
      { passive: false },
    );
    plot.addEventListener("keydown", (event) => {
      const arrows = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };
      if (!arrows[event.key] || !desk.view || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const [df, dt] = arrows[event.key].map((d) => d * (event.shiftKey ? 10 : 1)), v = desk.view, g = desk.grid;
      const middle = cell({ f: (v.f0 + v.f1) / 2, t: (v.t0 + v.t1) / 2 }, g);
      const [f0, t0] = desk.cursor ? [desk.cursor.f, desk.cursor.t] : middle;
      const f = clamp(f0 + df, 0, desk.shape[0] - 1), t = clamp(t0 + dt, 0, desk.shape[1] - 1);
      const hz = (f * g.rate) / g.n_fft, s = (t * g.hop) / g.rate;
      // The view follows a cursor that leaves it, by a cell more.
      const over = (x, low, high, cell) => (x - cell < low ? x - cell - low : x + cell > high ? x + cell - high : 0);
      desk.look(moved(v, over(s, v.t0, v.t1, g.hop / g.rate), over(hz, v.f0, v.f1, g.rate / g.n_fft)));
      desk.point(f, t);
    });
  }

  X.pointing = { attach, within, zoomed, moved, isWhole };
})();
