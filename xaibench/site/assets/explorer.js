// The explorer: what is chosen, what is drawn and what is heard. Data come by X.index (once) and X.deliver (a pair each).
// Text from data reaches the page by textContent alone.
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});
  const make = X.make, $ = (id) => document.getElementById("xp-" + id);
  const { KINDS, SORTS } = X.gallery;
  const root = $("desk").closest(".xp");
  let index = null, section = null, pair = null, map = null, state = null, order = [], ticket = 0;
  const desk = { view: null, whole: null, grid: null, shape: [1, 1], cursor: null, look, point, leave };
  // What the gallery and the sounds look at.
  const now = {
    desk, shares, stop, hundred, metric, kindOf, layer, dark, choose: chooseMethod,
    get index() { return index; }, get section() { return section; }, get pair() { return pair; },
    get map() { return map; }, get state() { return state; },
  };
  let shelf = null, heard = null; // the gallery and the sounds

  // ---- small helpers -------------------------------------------------------------------------------------------------
  function dark() {
    return getComputedStyle(document.documentElement).getPropertyValue("--paper").trim() !== "#ffffff";
  }

  function kindOf(name) {
    return (index.methods[name] || {}).kind || "method";
  }

  // The shares that can be chosen; the last one is as many cells as the truth has.
  function shares() {
    return [...index.shares, pair.counts[pair.counts.length - 1] / pair.cells];
  }

  function hundred(share) {
    return +(100 * share).toPrecision(4);
  }

  // Which of the shares is chosen.
  function stop() {
    return state.share === "truth" ? index.shares.length : index.shares.findIndex((s) => hundred(s) === +state.share);
  }

  function options(select, pairs, chosen) {
    select.replaceChildren(
      ...pairs.map(([value, label]) => {
        const option = make("option", "", label);
        option.value = value;
        return option;
      }),
    );
    select.value = chosen;
  }

  let saying = 0;
  function say(text) {
    clearTimeout(saying);
    saying = setTimeout(() => ($("said").textContent = text), 450);
  }

  function complain(text) {
    $("problem").textContent = text;
    $("problem").hidden = !text;
  }

  // The address says what is seen. Another utterance is a step back in the history, everything else is not.
  let addressing = 0;
  function address(step) {
    clearTimeout(addressing);
    const now = () => {
      try {
        history[step ? "pushState" : "replaceState"](null, "", X.state.write(state));
      } catch (error) {
        /* a browser may refuse when keys repeat: the next change is written */
      }
    };
    if (step) now();
    else addressing = setTimeout(now, 150);
  }

  // ---- choosing ------------------------------------------------------------------------------------------------------
  const matches = (p, what) => !state[what] || p[what] === state[what];
  const filtered = () => section.pairs.filter((p) => matches(p, "vocoder") && matches(p, "speaker"));

  function metric() {
    const usual = ["rank-accuracy", "rank-accuracy-time"].find((m) => section.metrics.includes(m));
    return state.metric || usual || section.metrics[0] || "";
  }

  // Make the state one that can be shown; `asked`: say what an address asked for in vain.
  function settle(asked) {
    const gone = [];
    const among = (what, value, known, fallback) => {
      if (value && !known.includes(value)) gone.push(what + " “" + value + "”");
      return known.includes(value) ? value : fallback;
    };
    state.section = among("board", state.section, index.sections.map((s) => s.slug), index.sections[0].slug);
    section = index.sections.find((s) => s.slug === state.section);
    state.vocoder = among("vocoder", state.vocoder, section.pairs.map((p) => p.vocoder), "");
    state.speaker = among("speaker", state.speaker, section.pairs.map((p) => p.speaker), "");
    if (!filtered().length) state.speaker = "";
    state.pair = among("utterance", state.pair, section.pairs.map((p) => p.id), filtered()[0].id);
    if (!filtered().some((p) => p.id === state.pair)) state.vocoder = state.speaker = "";
    state.metric = among("metric", state.metric, section.metrics, "");
    if (!Object.hasOwn(SORTS, state.sort)) state.sort = "score";
    if (!Object.hasOwn(KINDS, state.kind)) state.kind = "all";
    if (stop() < 0) state.share = "5";
    if (state.method) state.method = among("method", state.method, section.methods, "");
    const words = "The address asks for the " + gone.join(" and the ") + ", not found here. Something else is shown.";
    complain(asked && gone.length ? words : "");
  }

  async function show(asked) {
    settle(asked);
    controls();
    const mine = ++ticket, found = section.pairs.find((p) => p.id === state.pair);
    root.setAttribute("aria-busy", "true");
    try {
      const next = await X.pairs.pair(section.slug + "/" + found.slug);
      if (mine !== ticket) return;
      [pair, map] = [next, null];
      root.classList.remove("xp-lost");
    } catch (error) {
      if (mine === ticket) lose(error);
      return;
    } finally {
      if (mine === ticket) root.removeAttribute("aria-busy");
    }
    desk.grid = pair.grid;
    desk.shape = pair.shape;
    const [, T] = pair.shape, g = pair.grid;
    desk.whole = { t0: 0, t1: ((T - 0.5) * g.hop) / g.rate, f0: 0, f1: g.rate / 2 };
    desk.view = state.view ? X.pointing.within(state.view, desk.whole, g) : desk.whole;
    if (X.pointing.isWhole(desk.view, desk.whole)) state.view = null;
    heard.forget(true);
    order = shelf.sorted();
    if (!Object.hasOwn(pair.maps, state.method)) {
      state.method = order.find((n) => kindOf(n) === "method") || order[0] || Object.keys(pair.maps)[0];
    }
    await method();
    order = shelf.show();
    redraw();
    const near = filtered(), at = near.findIndex((p) => p.id === state.pair);
    X.pairs.soon([1, -1].map((d) => near[at + d]).filter(Boolean).map((p) => section.slug + "/" + p.slug));
  }

  // What was seen and heard before is not what was asked for: nothing is shown but what is wrong.
  function lose(error) {
    [pair, map] = [null, null];
    heard.stop();
    root.classList.add("xp-lost");
    complain(error.message);
  }

  // Another method of the same utterance.
  async function method() {
    const mine = ticket, name = state.method, found = await pair.map(name);
    if (mine !== ticket || name !== state.method) return;
    map = found;
    heard.forget(false);
    stage();
    side();
    X.details.scores($("scores"), section, index, pair, name);
    X.details.curves($("curves"), pair, name);
    shelf.mark();
    heard.retune();
    address();
  }

  function step(by) {
    const all = filtered(), at = all.findIndex((p) => p.id === state.pair);
    if (all[at + by]) choosePair(all[at + by].id);
  }

  function choosePair(id) {
    state.pair = id;
    address(true);
    const words = section.pairs.findIndex((p) => p.id === id) + 1;
    say("Utterance " + id + ", " + words + " of " + section.pairs.length);
    show();
  }

  function chooseMethod(name) {
    state.method = name;
    say(name + ", " + metric() + " " + X.details.number((pair.scores[metric()] || {})[name]));
    method();
  }

  function stepMethod(by) {
    const at = order.indexOf(state.method), next = order[at < 0 ? 0 : at + by];
    if (next) chooseMethod(next);
  }

  // ---- drawing -------------------------------------------------------------------------------------------------------
  const panels = {};

  function build() {
    const titles = { real: "Real", fake: "Fake", truth: "Truth", region: "Truth's region", map: "Map", top: "Top share" };
    for (const [name, title] of Object.entries(titles)) {
      const panel = X.panel({ title, label: title, interactive: true });
      panels[name] = panel;
      X.pointing.attach(panel.plot, desk, false);
      $("stage").append(panel.element);
    }
    new ResizeObserver(redraw).observe($("stage"));
    document.addEventListener("xaibench-theme", redraw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    const colour = (text, i) => "#" + text.substr(6 * Math.min(255, 16 * i), 6);
    const ramp = (text) => "linear-gradient(90deg," + Array.from({ length: 17 }, (_, i) => colour(text, i)) + ")";
    $("ramp-db").style.background = ramp(X.colours.VIRIDIS);
    $("ramp-map").style.background = ramp(X.colours.RDBU);
  }

  function layer(picture, alpha = 1) {
    return picture ? [{ picture, alpha }] : [];
  }

  function stage() {
    if (!map) return; // on its way
    const name = map.name, back = layer(pair.picture("backdrop", dark()));
    const top = pair.top(map, stop()), vocoder = section.pairs.find((p) => p.id === state.pair).vocoder;
    const share = shares()[stop()], count = pair.counts[stop()], words = X.details.percent(share);
    const put = (panel, title, layers, note) => {
      panels[panel].title.textContent = title;
      panels[panel].plot.setAttribute("aria-label", title);
      panels[panel].layers = layers;
      panels[panel].note = layers.length ? "" : note;
    };
    put("real", "Real (bona fide)", layer(pair.picture("real", false)), pair.note);
    put("fake", "Fake (" + vocoder + ")", layer(pair.picture("fake", false)), pair.note);
    put("truth", "Truth (" + section.truth + "): how much changed", layer(pair.picture("truth", false)), "");
    put("region", "Truth's region, over the fake", [...back, ...layer(pair.picture("region", false))], "");
    put("map", name + ": map, over the fake", [...back, ...layer(pair.evidence(map), state.opacity / 100)], "");
    const tied = map.tied[stop()] ? "; a tie decides at the edge" : "";
    const found = "Its top " + words + ": " + top.hits + " of " + count + " cells in the truth" + tied;
    const title = map.flat ? "No top " + words + ": its map is the same everywhere" : found;
    put("top", title, [...back, ...layer(top.picture)], "");
    redraw();
  }

  let drawing = 0;
  function redraw() {
    if (!drawing && pair && map) {
      drawing = requestAnimationFrame(() => {
        drawing = 0;
        backdrops();
        Object.values(panels).forEach((p) => p.draw(desk.view, desk.grid, desk.shape));
        shelf.draw();
        cross();
      });
    }
  }

  // Backdrops follow the colours of the page.
  let wasDark = null;
  function backdrops() {
    if (wasDark !== null && wasDark !== dark()) {
      wasDark = dark();
      stage();
    }
    wasDark = dark();
  }

  // ---- view and cursor -----------------------------------------------------------------------------------------------
  function look(view) {
    desk.view = X.pointing.within(view, desk.whole, desk.grid);
    state.view = X.pointing.isWhole(desk.view, desk.whole) ? null : desk.view;
    redraw();
    address();
  }

  function zoom(factor) {
    const v = desk.view, c = desk.cursor, g = desk.grid;
    const t = c ? (c.t * g.hop) / g.rate : (v.t0 + v.t1) / 2, f = c ? (c.f * g.rate) / g.n_fft : (v.f0 + v.f1) / 2;
    const inside = t >= v.t0 && t <= v.t1 && f >= v.f0 && f <= v.f1;
    look(X.pointing.zoomed(v, factor, inside ? t : (v.t0 + v.t1) / 2, inside ? f : (v.f0 + v.f1) / 2));
  }

  function point(f, t) {
    desk.cursor = { f: Math.min(f, desk.shape[0] - 1), t: Math.min(t, desk.shape[1] - 1) };
    cross();
    say($("reading").textContent);
  }

  function leave() {
    if (document.activeElement && document.activeElement.classList.contains("xp-plot")) return; // the keys still point
    desk.cursor = null;
    cross();
  }

  function cross() {
    const c = desk.cursor, v = desk.view, g = desk.grid;
    root.classList.toggle("xp-pointed", Boolean(c));
    if (c) {
      root.style.setProperty("--x", ((c.t * g.hop) / g.rate - v.t0) / (v.t1 - v.t0));
      root.style.setProperty("--y", 1 - ((c.f * g.rate) / g.n_fft - v.f0) / (v.f1 - v.f0));
    }
    const idle = "Point at a panel: frequency, time, levels and the map's value there stand here.";
    $("reading").textContent = c && map ? X.details.reading(pair, map, map.name, c, index.shares) : idle;
  }

  // ---- controls ------------------------------------------------------------------------------------------------------
  const unique = (values) => [...new Set(values)].filter(Boolean).sort();

  function controls() {
    options($("section"), index.sections.map((s) => [s.slug, s.name]), state.section);
    $("section").parentElement.hidden = index.sections.length < 2;
    const any = (what) => [["", "all"], ...unique(section.pairs.map((p) => p[what])).map((v) => [v, v])];
    options($("vocoder"), any("vocoder"), state.vocoder);
    options($("speaker"), any("speaker"), state.speaker);
    $("speaker").parentElement.hidden = unique(section.pairs.map((p) => p.speaker)).length < 2;
    const some = filtered(), at = some.findIndex((p) => p.id === state.pair);
    options($("pair"), some.map((p) => [p.id, p.source + ", " + p.vocoder]), state.pair);
    $("pair-place").textContent = at + 1 + " of " + some.length;
    $("pair-back").disabled = at <= 0;
    $("pair-on").disabled = at >= some.length - 1;
    options($("metric"), section.metrics.map((m) => [m, m]), metric());
    options($("kind"), Object.entries(KINDS), state.kind);
    options($("sort"), Object.entries(SORTS), state.sort);
    if ($("find").value !== state.find) $("find").value = state.find;
    $("fill").value = state.fill;
    $("level").checked = state.level;
    $("loop").checked = state.loop;
    $("board").hidden = !section.board;
    if (section.board) $("board").href = section.board;
    const unknown = "not stated; ask whoever gave you the data set before you pass this site on";
    $("licence").textContent = "Data set " + section.dataset + ". Licence: " + (section.licence || unknown) + ".";
    $("citation").textContent = section.citation ? "To be cited as: " + section.citation : "";
  }

  function side() {
    if (!map) return;
    const name = state.method, facts = index.methods[name] || {}, at = order.indexOf(name);
    const heading = facts.page ? make("a", "", name) : make("span", "", name);
    if (facts.page) heading.href = facts.page;
    $("method").replaceChildren(heading);
    const by = metric(), value = X.details.number((pair.scores[by] || {})[name]);
    const place = at < 0 ? "not among those chosen below" : at + 1 + " of " + order.length;
    $("method-facts").textContent = (facts.kind || "method") + ", " + place + "; " + by + " " + value + " on this utterance";
    $("method-back").disabled = at <= 0;
    $("method-on").disabled = at === order.length - 1;
    const share = shares()[stop()], words = X.details.percent(share), cells = ", " + pair.counts[stop()] + " cells";
    $("share").max = index.shares.length;
    $("share").value = stop();
    $("share-words").textContent = (state.share === "truth" ? "as many as the truth, " : "") + words + cells;
    $("share").setAttribute("aria-valuetext", $("share-words").textContent);
    $("opacity").value = state.opacity;
    $("opacity-words").textContent = state.opacity + " %";
    $("opacity").setAttribute("aria-valuetext", state.opacity + " %");
    heard.gains();
  }

  function setShare(at) {
    const last = index.shares.length, place = Math.max(0, Math.min(last, at));
    state.share = place === last ? "truth" : String(+(100 * index.shares[place]).toPrecision(4));
    heard.forget(false);
    stage();
    side();
    heard.retune();
    address();
  }

  function setOpacity(value) {
    state.opacity = Math.max(0, Math.min(100, value));
    stage();
    side();
    address();
  }

  function tune(change) {
    change();
    heard.forget(true);
    heard.retune();
    address();
  }

  function arrange(change) {
    change();
    order = shelf.show();
    redraw();
    side();
    address();
  }

  function listen() {
    const on = (id, event, act) => $(id).addEventListener(event, act);
    on("section", "change", () => {
      state.section = $("section").value;
      address(true);
      show();
    });
    for (const what of ["vocoder", "speaker"]) {
      on(what, "change", () => {
        state[what] = $(what).value;
        if (!filtered().length) state[what === "vocoder" ? "speaker" : "vocoder"] = "";
        const some = filtered();
        if (!some.some((p) => p.id === state.pair)) state.pair = some[0].id;
        address(true);
        show();
      });
    }
    on("pair", "change", () => choosePair($("pair").value));
    on("pair-back", "click", () => step(-1));
    on("pair-on", "click", () => step(1));
    on("method-back", "click", () => stepMethod(-1));
    on("method-on", "click", () => stepMethod(1));
    on("closer", "click", () => zoom(0.6));
    on("wider", "click", () => zoom(1 / 0.6));
    on("whole", "click", () => look(desk.whole));
    on("share", "input", () => setShare(+$("share").value));
    on("opacity", "input", () => setOpacity(+$("opacity").value));
    on("fill", "change", () => tune(() => (state.fill = $("fill").value)));
    on("level", "change", () => tune(() => (state.level = $("level").checked)));
    on("loop", "change", () => tune(() => (state.loop = $("loop").checked)));
    for (const what of ["metric", "kind", "sort"]) {
      on(what, "change", () => arrange(() => (state[what] = $(what).value)));
    }
    on("find", "input", () => arrange(() => (state.find = $("find").value)));
    on("help-open", "click", () => $("help").showModal());
    addEventListener("popstate", () => {
      state = X.state.read(location.hash);
      show(true);
    });
    document.addEventListener("keydown", keys);
  }

  // Single keys, unless something is being typed or they are switched off.
  function keys(event) {
    const typing = "input:not([type=range]):not([type=checkbox]), select, textarea, dialog[open]";
    if (event.target.closest(typing) || event.ctrlKey || event.metaKey || event.altKey || !section) return;
    const acts = {
      n: () => step(1), p: () => step(-1), j: () => stepMethod(1), k: () => stepMethod(-1),
      ",": () => setShare(stop() - 1), ".": () => setShare(stop() + 1),
      "[": () => setOpacity(state.opacity - 5), "]": () => setOpacity(state.opacity + 5),
      "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), 0: () => look(desk.whole),
      "/": () => $("find").focus(), "?": () => $("help").showModal(), Escape: () => heard.stop(),
      ...Object.fromEntries(X.sounds.KINDS.map((kind, i) => [i + 1, () => heard.toggle(kind)])),
    };
    const act = Object.hasOwn(acts, event.key) && acts[event.key];
    if (!act || (!$("keys").checked && event.key !== "Escape") || (!pair && !"np?".includes(event.key))) return;
    event.preventDefault();
    act();
  }

  X.index = function (content) {
    if (!window.DecompressionStream) {
      $("loading").remove();
      complain("This browser is too old for the explorer, which needs Chrome 80, Firefox 113, Safari 16.4 or newer.");
      return;
    }
    index = content;
    state = X.state.read(location.hash);
    build();
    shelf = X.gallery(now);
    heard = X.listening(now);
    listen();
    if (innerWidth < 600) $("scores-fold").open = false; // long, and in the way of what is below
    show(true);
    $("loading").remove(); // with a script missing, nothing comes this far
  };
})();
