// One sound at a time, through Web Audio. Changing the sound, or what it is made of, keeps the place: two can be compared
// while they play. `changed(name)` is told what plays ("" for nothing), `moved(seconds)` where it is (null for nowhere).
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});

  function player(changed, moved) {
    let context = null, source = null, playing = "", began = 0, from = 0, span = [0, 0], loop = false;

    function place() {
      const passed = context.currentTime - began, length = span[1] - span[0];
      const at = from + passed;
      return loop && at > span[1] ? span[0] + ((at - span[0]) % length) : at;
    }

    function silence() {
      if (source) {
        source.onended = null;
        source.stop();
        source.disconnect();
        source = null;
      }
    }

    function stop() {
      silence();
      playing = "";
      moved(null);
      changed("");
    }

    // samples at rate; range: [start, end] in seconds; keep: go on from where the last one is.
    function play(name, samples, rate, range, looped) {
      context = context || new AudioContext();
      context.resume();
      const at = source ? place() : range[0];
      const length = samples.length / rate;
      silence();
      loop = looped;
      span = [Math.min(Math.max(range[0], 0), length), Math.min(range[1], length)];
      from = at >= span[0] && at < span[1] ? at : span[0];
      const buffer = context.createBuffer(1, samples.length, rate);
      buffer.copyToChannel(Float32Array.from(samples), 0);
      source = context.createBufferSource();
      source.buffer = buffer;
      source.connect(context.destination);
      source.onended = stop;
      if (loop) {
        source.loop = true;
        [source.loopStart, source.loopEnd] = span;
        source.start(0, from);
      } else source.start(0, from, span[1] - from);
      began = context.currentTime;
      if (playing !== name) changed((playing = name));
      requestAnimationFrame(tick);
    }

    function tick() {
      if (!source) return;
      moved(Math.min(place(), span[1]));
      requestAnimationFrame(tick);
    }

    return { play, stop, get playing() { return playing; } };
  }

  // A WAV file of 16 bit.
  function wav(samples, rate) {
    const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
    const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
    word(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); word(8, "WAVEfmt ");
    view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
    view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true);
    view.setUint16(32, 2, true); view.setUint16(34, 16, true);
    word(36, "data"); view.setUint32(40, 2 * samples.length, true);
    samples.forEach((x, i) => view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(x * 32768))), true));
    return new Blob([view.buffer], { type: "audio/wav" });
  }

  X.player = player;
  X.wav = wav;
})();
