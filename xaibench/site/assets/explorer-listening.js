// What is heard: the list of sounds, playing, saving. `now` says what is looked at: {pair, map, state, desk, stop(), ...}.
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});
  const make = X.make, $ = (id) => document.getElementById("xp-" + id);
  const SOUNDS = { real: "Real", fake: "Fake", deleted: "Deleted", kept: "Kept only", difference: "Difference" };

  X.listening = function (now) {
    const root = $("desk").closest(".xp"), sounds = new Map();
    for (const [i, kind] of X.sounds.KINDS.entries()) {
      const line = make("li"), play = make("button"), save = make("button", "", "Save");
      play.type = save.type = "button";
      play.append(make("kbd", "", String(i + 1)), make("span", "", SOUNDS[kind]), make("small"));
      play.id = "xp-play-" + kind;
      play.setAttribute("aria-pressed", "false");
      save.setAttribute("aria-label", "Save " + SOUNDS[kind] + " as WAV");
      play.addEventListener("click", () => toggle(kind));
      save.addEventListener("click", () => download(kind));
      line.append(play, save);
      $("sounds").append(line);
    }

    const player = X.player(
      (name) => {
        X.sounds.KINDS.forEach((kind) => $("play-" + kind).setAttribute("aria-pressed", String(kind === name)));
        root.classList.toggle("xp-playing", Boolean(name));
      },
      (seconds) => {
        const v = now.desk.view;
        if (seconds !== null) root.style.setProperty("--play", (seconds - v.t0) / (v.t1 - v.t0));
      },
    );

    function sound(kind) {
      if (!sounds.has(kind)) {
        const made = X.sounds.make(kind, now.pair, now.pair.top(now.map, now.stop()).mask, now.state.fill);
        sounds.set(kind, made && X.sounds.matched(made, now.state.level ? now.pair.fake.wave : null));
      }
      return sounds.get(kind);
    }

    function start(kind) {
      if (!now.map) return;
      const found = sound(kind), { rate, samples } = now.pair.grid, v = now.desk.view;
      const range = now.state.view ? [v.t0, v.t1] : [0, samples / rate];
      if (found) player.play(kind, found.samples, rate, range, now.state.loop);
      else player.stop(); // what another utterance has, this one lacks
      gains();
    }

    function toggle(kind) {
      if ($("play-" + kind).disabled) return;
      if (player.playing === kind) player.stop();
      else start(kind);
    }

    // What plays follows the share, the method and the options.
    let tuning = 0;
    function retune() {
      clearTimeout(tuning);
      tuning = setTimeout(() => (player.playing && now.map ? start(player.playing) : gains()), 60);
    }

    function gains() {
      if (!now.pair) return;
      for (const kind of X.sounds.KINDS) {
        const known = sounds.get(kind), button = $("play-" + kind);
        const lacks = !now.pair.fake || (!now.pair.real && (kind === "real" || kind === "difference"));
        button.disabled = button.nextSibling.disabled = lacks;
        const gain = known ? Math.abs(known.gain).toFixed(1) : "0.0";
        const db = gain === "0.0" ? "" : (known.gain > 0 ? "+" : "−") + gain + " dB";
        button.lastChild.textContent = !known ? "" : known.silent ? "silent" : db + (known.limited ? " (peak)" : "");
      }
      $("sound-note").textContent = now.pair.note;
    }

    function download(kind) {
      const found = now.map && sound(kind);
      if (!found) return;
      const link = make("a"), url = URL.createObjectURL(X.wav(found.samples, now.pair.grid.rate));
      link.href = url;
      const masked = kind === "deleted" || kind === "kept";
      const about = masked ? [now.map.name, "top" + now.hundred(now.shares()[now.stop()])] : [];
      link.download = [now.state.pair, ...about, kind].join("_").replace(/[^\w.+-]+/g, "-") + ".wav";
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
    }

    // Forget what was made: all of it, or what a mask made.
    function forget(all) {
      if (all) sounds.clear();
      else ["deleted", "kept"].forEach((kind) => sounds.delete(kind));
    }

    return { toggle, retune, gains, forget, stop: () => player.stop() };
  };
})();
