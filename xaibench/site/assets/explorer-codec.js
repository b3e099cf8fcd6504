// Text to bytes, bytes to maps and masks, as xaibench/site/levels.py wrote them. Maps (F, T) are Uint8Arrays in row order.
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});
  const FIRST = 0x3000; // characters of 15 bits; the first one says how many bits of the last are padding

  function bytes(text) {
    const padding = text.charCodeAt(0) - FIRST;
    const out = new Uint8Array(((text.length - 1) * 15 - padding) >> 3);
    let held = 0, bits = 0, at = 0;
    for (let i = 1; at < out.length; i++) {
      held = (held << 15) | (text.charCodeAt(i) - FIRST);
      bits += 15;
      while (bits >= 8 && at < out.length) {
        bits -= 8;
        out[at++] = (held >> bits) & 255;
      }
      held &= (1 << bits) - 1;
    }
    return out;
  }

  async function inflate(content) {
    const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Undo the prediction from the left, the lower and the diagonal neighbour, in place.
  function unpredict(codes, F, T) {
    for (let f = 0, i = 0; f < F; f++) {
      for (let t = 0; t < T; t++, i++) {
        const left = t ? codes[i - 1] : 0, below = f ? codes[i - T] : 0, diagonal = t && f ? codes[i - T - 1] : 0;
        const low = Math.min(left, below), high = Math.max(left, below);
        codes[i] += Math.min(Math.max(left + below - diagonal, low), high);
      }
    }
    return codes;
  }

  // A map of a pair's script -> {codes, means, stops, tied, limit}.
  async function map(stored, F, T) {
    const codes = await inflate(bytes(stored.levels));
    return { ...stored, levels: "", codes: stored.predicted ? unpredict(codes, F, T) : codes };
  }

  async function mask(text, cells) {
    const packed = await inflate(bytes(text));
    return Uint8Array.from({ length: cells }, (_, i) => (packed[i >> 3] >> (7 - (i & 7))) & 1);
  }

  // The cells above a cut: exactly the top share; none of a map that is the same everywhere.
  function top(found, stop, valid) {
    const limit = found.flat ? 0 : found.stops[stop];
    return found.codes.map((code, i) => (code < limit && valid[i] ? 1 : 0));
  }

  // A FLAC file -> samples as they were, Float32Array. Browsers scale 16 bit to [-1, 1] in more than one way; we round back.
  async function sound(text, rate, samples) {
    const offline = new OfflineAudioContext(1, samples, rate);
    const decoded = (await offline.decodeAudioData(bytes(text).buffer)).getChannelData(0);
    if (decoded.length < samples) throw new Error("a recording of " + decoded.length + " samples, expected " + samples);
    return decoded.slice(0, samples).map((x) => Math.round(x * 32768) / 32768);
  }

  X.codec = { bytes, inflate, map, mask, top, sound };
})();
