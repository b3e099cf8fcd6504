// The STFT of xaibench/grid.py: centred, reflect-padded, periodic window; frame t stands at sample t * hop.
// A spectrum is {re, im, F, T}, Float64Arrays with frames one after another: cell (f, t) at t * F + f.
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});
  const SHAPES = { hann: [0.5, 0.5, 0], hamming: [0.54, 0.46, 0], blackman: [0.42, 0.5, 0.08] };
  const plans = new Map();

  function taper(grid) {
    const [a, b, c] = SHAPES[grid.window];
    return Float64Array.from({ length: grid.n_fft }, (_, n) => {
      const x = (2 * Math.PI * n) / grid.n_fft;
      return a - b * Math.cos(x) + c * Math.cos(2 * x);
    });
  }

  // A Fourier transform of n points, in place: radix 2, or Bluestein's for other n.
  function plan(n) {
    if (!plans.has(n)) plans.set(n, (n & (n - 1)) === 0 ? radix2(n) : bluestein(n));
    return plans.get(n);
  }

  function radix2(n) {
    const cos = Float64Array.from({ length: n / 2 }, (_, k) => Math.cos((2 * Math.PI * k) / n));
    const sin = Float64Array.from({ length: n / 2 }, (_, k) => -Math.sin((2 * Math.PI * k) / n));
    const reversed = new Uint32Array(n);
    for (let i = 1; i < n; i++) reversed[i] = (reversed[i >> 1] >> 1) | (i & 1 ? n >> 1 : 0);
    return function (re, im) {
      for (let i = 0; i < n; i++) {
        const j = reversed[i];
        if (j > i) {
          [re[i], re[j]] = [re[j], re[i]];
          [im[i], im[j]] = [im[j], im[i]];
        }
      }
      for (let half = 1, step = n >> 1; half < n; half <<= 1, step >>= 1) {
        for (let start = 0; start < n; start += 2 * half) {
          for (let k = 0, w = 0; k < half; k++, w += step) {
            const i = start + k, j = i + half;
            const x = re[j] * cos[w] - im[j] * sin[w], y = re[j] * sin[w] + im[j] * cos[w];
            re[j] = re[i] - x; im[j] = im[i] - y;
            re[i] += x; im[i] += y;
          }
        }
      }
    };
  }

  function bluestein(n) {
    let m = 1;
    while (m < 2 * n) m <<= 1;
    const fft = plan(m);
    const angle = (k) => (Math.PI * ((k * k) % (2 * n))) / n; // exact for large k
    const cos = Float64Array.from({ length: n }, (_, k) => Math.cos(angle(k)));
    const sin = Float64Array.from({ length: n }, (_, k) => Math.sin(angle(k)));
    const kr = new Float64Array(m), ki = new Float64Array(m);
    for (let k = 0; k < n; k++) {
      kr[k] = kr[(m - k) % m] = cos[k];
      ki[k] = ki[(m - k) % m] = sin[k];
    }
    fft(kr, ki);
    return function (re, im) {
      const xr = new Float64Array(m), xi = new Float64Array(m);
      for (let k = 0; k < n; k++) {
        xr[k] = re[k] * cos[k] + im[k] * sin[k];
        xi[k] = im[k] * cos[k] - re[k] * sin[k];
      }
      fft(xr, xi);
      for (let k = 0; k < m; k++) {
        const r = xr[k] * kr[k] - xi[k] * ki[k];
        xi[k] = -(xr[k] * ki[k] + xi[k] * kr[k]); // conjugated, to go back with the same transform
        xr[k] = r;
      }
      fft(xr, xi);
      for (let k = 0; k < n; k++) {
        const r = xr[k] / m, i = -xi[k] / m;
        re[k] = r * cos[k] + i * sin[k];
        im[k] = i * cos[k] - r * sin[k];
      }
    };
  }

  function stft(wave, grid) {
    const n = grid.n_fft, F = n / 2 + 1, T = Math.floor(wave.length / grid.hop) + 1, last = wave.length - 1;
    const window_ = taper(grid), fft = plan(n);
    const out = { re: new Float64Array(F * T), im: new Float64Array(F * T), F, T };
    const re = new Float64Array(n), im = new Float64Array(n);
    for (let t = 0; t < T; t++) {
      for (let i = 0; i < n; i++) {
        let at = Math.abs(t * grid.hop + i - n / 2);
        if (at > last) at = 2 * last - at;
        re[i] = wave[at] * window_[i];
        im[i] = 0;
      }
      fft(re, im);
      out.re.set(re.subarray(0, F), t * F);
      out.im.set(im.subarray(0, F), t * F);
    }
    return out;
  }

  // The waveform of a spectrum: overlap-add with the window, divided by the sum of its squares.
  function istft(spectrum, grid, samples) {
    const n = grid.n_fft, { F, T } = spectrum, window_ = taper(grid), fft = plan(n);
    const sum = new Float64Array((T - 1) * grid.hop + n), weight = new Float64Array(sum.length);
    const re = new Float64Array(n), im = new Float64Array(n);
    for (let t = 0; t < T; t++) {
      for (let f = 0; f < F; f++) {
        const r = spectrum.re[t * F + f], i = f && f < n / 2 ? spectrum.im[t * F + f] : 0;
        re[f] = r; im[f] = -i; // the inverse is the transform of the conjugate
        if (f && f < n / 2) { re[n - f] = r; im[n - f] = i; }
      }
      fft(re, im);
      for (let i = 0; i < n; i++) {
        sum[t * grid.hop + i] += (re[i] / n) * window_[i];
        weight[t * grid.hop + i] += window_[i] * window_[i];
      }
    }
    const out = new Float64Array(samples);
    for (let i = 0; i < samples && i + n / 2 < sum.length; i++) {
      const w = weight[i + n / 2];
      out[i] = w > 1e-11 ? sum[i + n / 2] / w : 0;
    }
    return out;
  }

  // dB below the loudest cell, (F, T) in row order, as the figures draw it.
  function decibel(spectrum) {
    const { F, T, re, im } = spectrum, out = new Float32Array(F * T);
    let most = 1e-10;
    for (let i = 0; i < re.length; i++) most = Math.max(most, Math.hypot(re[i], im[i]));
    for (let t = 0; t < T; t++) {
      for (let f = 0; f < F; f++) {
        const size = Math.hypot(re[t * F + f], im[t * F + f]);
        out[f * T + t] = 20 * Math.log10(Math.max(size, 1e-10) / most);
      }
    }
    return out;
  }

  X.stft = { plan, stft, istft, decibel };
})();
