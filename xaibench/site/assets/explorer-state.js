// What is looked at, as the part of the address behind #, so that every view has an address. Only what differs from the
// usual is written. Whatever an address holds is text that is compared with known names; numbers are kept in their range.
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});
  const USUAL = {
    section: "", pair: "", method: "", view: null, share: "5", opacity: 75, fill: "silence", level: true, loop: false,
    sort: "score", metric: "", kind: "all", find: "", vocoder: "", speaker: "",
  };
  const KEYS = {
    section: "s", pair: "u", method: "m", view: "v", share: "k", opacity: "o", fill: "fill", level: "level", loop: "loop",
    sort: "sort", metric: "by", kind: "kind", find: "find", vocoder: "vocoder", speaker: "speaker",
  };

  function read(hash) {
    const asked = new URLSearchParams(hash.replace(/^#/, "")), state = { ...USUAL };
    for (const [name, key] of Object.entries(KEYS)) if (asked.get(key)) state[name] = asked.get(key);
    state.level = String(state.level) !== "false";
    state.loop = String(state.loop) === "true";
    const opacity = Number(state.opacity);
    state.opacity = Number.isFinite(opacity) ? Math.max(0, Math.min(100, Math.round(opacity))) : USUAL.opacity;
    if (state.fill !== "twin") state.fill = "silence";
    if (state.view !== null) {
      const [t0, t1, f0, f1] = state.view.split(",").map(Number);
      state.view = t1 > t0 && f1 > f0 && [t0, t1, f0, f1].every(Number.isFinite) ? { t0, t1, f0, f1 } : null;
    }
    return state;
  }

  function write(state) {
    const found = new URLSearchParams();
    for (const [name, key] of Object.entries(KEYS)) {
      if (name === "view") {
        const v = state.view;
        if (v) found.set(key, [v.t0.toFixed(4), v.t1.toFixed(4), v.f0.toFixed(1), v.f1.toFixed(1)].join());
      } else if (state[name] !== USUAL[name] && state[name] !== "") found.set(key, String(state[name]));
    }
    return "#" + found.toString().replaceAll("%2F", "/").replaceAll("%2C", ",");
  }

  X.state = { USUAL, read, write };
})();
