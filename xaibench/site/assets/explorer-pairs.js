// The scripts of pairs: asked for when needed, and made into spectra, masks and pictures. Only a few are kept.
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});
  const waiting = new Map(), raw = new Map(), ready = new Map();
  const MOST_RAW = 8, MOST_READY = 3;

  function keep(store, id, value, most) {
    store.delete(id);
    store.set(id, value);
    while (store.size > most) store.delete(store.keys().next().value);
    return value;
  }

  X.deliver = function (id, content) {
    const asked = waiting.get(id);
    waiting.delete(id);
    if (asked) asked.resolve(content);
  };

  // The content of a pair's script. Rejects where the file is missing or damaged.
  function fetched(id) {
    if (raw.has(id)) return keep(raw, id, raw.get(id), MOST_RAW);
    const asked = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      const fail = () => {
        raw.delete(id);
        reject(new Error("explorer/" + id + ".js is missing or damaged. Copy the whole site, or write it again."));
      };
      waiting.set(id, { resolve });
      script.src = "explorer/" + id.split("/").map(encodeURIComponent).join("/") + ".js";
      script.onerror = fail;
      script.onload = () => {
        script.remove();
        if (waiting.delete(id)) fail(); // it ran, and delivered nothing
      };
      document.head.append(script);
    });
    return keep(raw, id, asked, MOST_RAW);
  }

  async function half(text, grid) {
    if (!text) return null;
    const wave = await X.codec.sound(text, grid.rate, grid.samples), spectrum = X.stft.stft(wave, grid);
    return { wave, spectrum, decibel: X.stft.decibel(spectrum) };
  }

  async function prepare(id) {
    const content = await fetched(id), [F, T] = content.shape, pair = { ...content, id };
    const one = (text) =>
      half(text, content.grid).catch((error) => {
        pair.note = "A recording could not be read: " + error.message;
        return null;
      });
    [pair.valid, pair.region, pair.truthMap, pair.real, pair.fake] = await Promise.all([
      X.codec.mask(content.valid, F * T), X.codec.mask(content.region, F * T), X.codec.map(content.truth, F, T),
      one(content.sound.real), one(content.sound.fake),
    ]);
    const known = new Map(), pictures = new Map();
    const once = (store, key, make) => (store.has(key) ? store.get(key) : store.set(key, make()).get(key));
    pair.map = (name) => once(known, name, async () => ({ ...(await X.codec.map(content.maps[name], F, T)), name }));
    pair.picture = (what, dark) =>
      once(pictures, what + dark, () => {
        if (what === "truth") return X.colours.evidence(pair.truthMap, F, T);
        if (what === "region") return X.colours.region(pair.region, pair.region, F, T);
        if (what === "backdrop") return pair.fake && X.colours.backdrop(pair.fake.decibel, F, T, dark);
        return pair[what] && X.colours.spectrogram(pair[what].decibel, F, T);
      });
    const drawn = new Map();
    pair.evidence = (map) => once(drawn, map, () => X.colours.evidence(map, F, T));
    let cut = -1, tops = new Map();
    // The top cells of a map and their picture; those of one share are kept.
    pair.top = (map, stop) => {
      if (cut !== stop) [cut, tops] = [stop, new Map()];
      return once(tops, map, () => {
        const mask = X.codec.top(map, stop, pair.valid);
        const hits = mask.reduce((sum, m, i) => sum + (m & pair.region[i]), 0);
        return { mask, hits, picture: X.colours.region(mask, pair.region, F, T) };
      });
    };
    return pair;
  }

  function pair(id) {
    if (ready.has(id)) return keep(ready, id, ready.get(id), MOST_READY);
    const made = prepare(id);
    made.catch(() => ready.delete(id));
    return keep(ready, id, made, MOST_READY);
  }

  // Neighbours are read while nothing else is done.
  function soon(ids) {
    const idle = window.requestIdleCallback || ((run) => setTimeout(run, 200));
    idle(() => ids.forEach((id) => fetched(id).catch(() => {})));
  }

  X.pairs = { pair, soon };
})();
