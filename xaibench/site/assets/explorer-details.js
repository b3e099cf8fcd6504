// Words, the table of scores and the curves of one utterance and method.
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});
  const make = X.make;
  const SVG = "http://www.w3.org/2000/svg";

  // Three digits; a dash for the unknown.
  function number(value) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size < 0.001 || size >= 10000 ? value.toExponential(1) : value.toPrecision(3);
    return text.replace("-", "−");
  }

  const percent = (share) => +(100 * share).toPrecision(3) + " %";

  // What is at a cell, {f, t}: text for the read-out.
  function reading(pair, map, name, cell, shares) {
    const [F, T] = pair.shape, i = cell.f * T + cell.t, parts = [];
    const hz = (cell.f * pair.grid.rate) / pair.grid.n_fft, s = (cell.t * pair.grid.hop) / pair.grid.rate;
    if (cell.f < 0 || cell.f >= F || cell.t < 0 || cell.t >= T) return "";
    parts.push(Math.round(hz) + " Hz", s.toFixed(3) + " s");
    for (const half of ["real", "fake"]) {
      if (pair[half]) parts.push(half + " " + Math.round(pair[half].decibel[i]).toString().replace("-", "−") + " dB");
    }
    if (map) {
      const inTop = shares.findIndex((_, k) => map.codes[i] < map.stops[k]);
      const rank = !pair.valid[i] || map.flat ? "not ranked" : inTop < 0 ? "below its top half" : "in its top " + percent(shares[inTop]);
      parts.push(name + " ≈ " + number(map.means[map.codes[i]]) + ", " + rank);
    }
    parts.push(!pair.valid[i] ? "outside the valid band" : pair.region[i] ? "in the truth" : "not in the truth");
    return parts.join(" · ");
  }

  function row(cells, head) {
    const line = make("tr");
    cells.forEach((text, i) => {
      const cell = make(head || i === 0 ? "th" : "td", i ? "n" : "", text);
      if (head) cell.scope = "col";
      else if (i === 0) cell.scope = "row";
      line.append(cell);
    });
    return line;
  }

  // Every metric of this utterance, beside the best and the blind; and the mean over all utterances.
  function scores(table, section, index, pair, name) {
    const others = ["oracle", "random"].filter((n) => n !== name && section.methods.includes(n));
    const body = make("tbody"), head = make("thead");
    head.append(row(["metric", name, ...others, "mean of " + name], true));
    for (const metric of section.metrics) {
      const values = pair.scores[metric] || {}, facts = index.metrics[metric] || {};
      const why = ((pair.gaps[name] || {})[metric] || "").trim();
      const means = (section.means[metric] || {})[name];
      const line = row([metric, number(values[name]), ...others.map((n) => number(values[n])), number(means)]);
      line.firstChild.append(make("span", "", facts.direction === "lower" ? " ↓" : " ↑"));
      if (facts.misleads) line.firstChild.title = "When to distrust it: " + facts.misleads;
      if (values[name] === undefined && why) line.children[1].append(make("small", "xp-why", " " + why));
      body.append(line);
    }
    table.replaceChildren(head, body);
  }

  function shape(name, facts) {
    const found = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(facts)) found.setAttribute(key, String(value));
    return found;
  }

  // One curve: spoof log-odds against the share of cells deleted or inserted; of the method, the oracle and random.
  function chart(title, lines) {
    const width = 330, height = 170, left = 40, bottom = 30, right = 8, top = 8;
    const every = lines.flatMap((line) => line.values).filter(Number.isFinite);
    const low = Math.min(...every), high = Math.max(...every, low + 1e-6), room = 0.06 * (high - low);
    const x = (share) => left + share * (width - left - right);
    const y = (value) => top + ((high + room - value) / (high - low + 2 * room)) * (height - top - bottom);
    const ends = lines.map((l) => l.name + " from " + number(l.values[0]) + " to " + number(l.values[l.values.length - 1]));
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "xp-chart" });
    svg.setAttribute("aria-label", title + ", spoof log-odds: " + ends.join("; "));
    const words = (text, facts) => {
      const found = shape("text", facts);
      found.textContent = text;
      svg.append(found);
    };
    for (const value of X.ticks(low, high, 4)) {
      svg.append(shape("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "xp-grid" }));
      words(String(value).replace("-", "−"), { x: left - 5, y: y(value) + 3.5, "text-anchor": "end" });
    }
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      const anchor = share === 1 ? "end" : "middle";
      words(100 * share + (share === 1 ? " %" : ""), { x: x(share), y: height - bottom + 14, "text-anchor": anchor });
    }
    words("share of cells " + (title.startsWith("insertion") ? "put in" : "taken out"), {
      x: (left + width - right) / 2, y: height - 2, "text-anchor": "middle",
    });
    for (const line of lines) {
      const point = (v, i) => (Number.isFinite(v) ? x(line.fractions[i]).toFixed(1) + "," + y(v).toFixed(1) : "");
      const points = line.values.map(point);
      svg.append(shape("polyline", { points: points.filter(Boolean).join(" "), class: "xp-line xp-line-" + line.style }));
    }
    const figure = make("figure", "xp-curve"), caption = make("figcaption", "", title + ": spoof log-odds");
    const legend = make("p", "xp-legend");
    lines.forEach((line) => legend.append(make("span", "xp-key xp-key-" + line.style, line.name)));
    figure.append(caption, svg, legend);
    return figure;
  }

  function curves(place, pair, name) {
    const mine = pair.curves[name] || {}, names = Object.keys(mine).filter((n) => n !== "fractions");
    if (!names.length) {
      const why = "the run is older than curves, or no metric asked for one.";
      place.replaceChildren(make("p", "note", "No curve was kept for " + name + " on this utterance: " + why));
      return;
    }
    const styles = [[name, "mine"], ["oracle", "oracle"], ["random", "random"]].filter(([n], i) => i === 0 || n !== name);
    place.replaceChildren(
      ...names.map((curve) => {
        const found = styles.map(([n, style]) => ({ name: n, style, ...pick(pair.curves[n], curve) }));
        return chart(curve, found.filter((line) => line.values));
      }),
    );
  }

  const pick = (stored, curve) => (stored && stored[curve] ? { values: stored[curve], fractions: stored.fractions } : {});

  X.details = { number, percent, reading, scores, curves };
})();
