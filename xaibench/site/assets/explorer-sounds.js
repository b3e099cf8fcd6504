// What can be heard: both halves, what a mask keeps, what it leaves, and what differs. Masks multiply the complex STFT, so
// the phase is the original one; levels are matched as in xaibench/listen.py, and nothing clips.
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});
  const PEAK = Math.pow(10, -1 / 20), SILENT = Math.pow(10, -150 / 20);
  const KINDS = ["real", "fake", "deleted", "kept", "difference"];

  // keep * fake + (1 - keep) * fill, as a waveform. keep: (F, T) in row order; fill: a spectrum, or null for silence.
  function masked(fake, keep, grid, fill) {
    const { F, T } = fake, re = new Float64Array(F * T), im = new Float64Array(F * T);
    for (let t = 0; t < T; t++) {
      for (let f = 0; f < F; f++) {
        const i = t * F + f, k = keep[f * T + t];
        re[i] = k * fake.re[i] + (fill ? (1 - k) * fill.re[i] : 0);
        im[i] = k * fake.im[i] + (fill ? (1 - k) * fill.im[i] : 0);
      }
    }
    return X.stft.istft({ re, im, F, T }, grid, grid.samples);
  }

  // The difference of the two magnitudes, in the phase of the fake: what Eq. 1 of the truth measures, before it divides.
  function difference(real, fake, grid) {
    const { F, T } = fake, re = new Float64Array(F * T), im = new Float64Array(F * T);
    for (let i = 0; i < re.length; i++) {
      const size = Math.hypot(fake.re[i], fake.im[i]);
      const part = size > 0 ? (size - Math.hypot(real.re[i], real.im[i])) / size : 0;
      re[i] = part * fake.re[i];
      im[i] = part * fake.im[i];
    }
    return X.stft.istft({ re, im, F, T }, grid, grid.samples);
  }

  // kind: of KINDS; mask: (F, T) of a method's top cells; fill: "silence" or "twin". null where the recordings lack.
  function make(kind, pair, mask, fill) {
    const { real, fake, grid } = pair;
    if (!fake || (!real && (kind === "real" || kind === "difference"))) return null;
    if (kind === "real" || kind === "fake") return Float64Array.from(pair[kind].wave);
    if (kind === "difference") return difference(real.spectrum, fake.spectrum, grid);
    const keep = kind === "kept" ? mask : mask.map((m) => 1 - m);
    return masked(fake.spectrum, keep, grid, fill === "twin" && real ? real.spectrum : null);
  }

  function rms(wave) {
    return Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length);
  }

  // As loud as `like`, or as near as the peak allows; like = null: as it is, lower only where it would clip.
  function matched(wave, like) {
    const loud = rms(wave), peak = wave.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    if (loud < SILENT) return { samples: new Float64Array(wave.length), gain: 0, silent: true, limited: false };
    const wanted = like ? rms(like) / loud : 1, most = like ? PEAK / peak : Math.max(1, PEAK) / peak;
    const gain = Math.min(wanted, most);
    return { samples: wave.map((x) => x * gain), gain: 20 * Math.log10(gain), silent: false, limited: most < wanted };
  }

  X.sounds = { KINDS, PEAK, make, masked, difference, rms, matched };
})();
