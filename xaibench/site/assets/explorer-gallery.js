// Every method: a card with its map and its top share each. Cards that are out of sight are neither decoded nor drawn.
// `now` says what is looked at: {index, section, pair, state, desk, stop(), metric(), kindOf(), layer(), dark(), choose()}.
(function () {
  "use strict";
  const X = (window.xaibench = window.xaibench || {});
  const make = X.make, $ = (id) => document.getElementById("xp-" + id);
  const KINDS = { all: "all", method: "methods", ceiling: "ceilings", sham: "shams", floor: "floors" };
  const SORTS = { score: "score on this utterance", mean: "mean score", name: "name", kind: "kind" };
  const ORDER = ["method", "ceiling", "sham", "floor"];

  X.gallery = function (now) {
    const cards = new Map();

    // The scores that decide: of this utterance, or the means.
    function values() {
      const { state, section, pair } = now, by = now.metric();
      return (state.sort === "mean" ? section.means[by] : pair.scores[by]) || {};
    }

    // Methods that are chosen, best first where a score decides, controls after methods.
    function sorted() {
      const { state, index } = now, known = values(), find = state.find.trim().toLowerCase();
      const sign = (index.metrics[now.metric()] || {}).direction === "lower" ? 1 : -1;
      const score = (name) => (Number.isFinite(known[name]) ? sign * known[name] : Infinity);
      const rank = (name) => Math.min(ORDER.indexOf(now.kindOf(name)), state.sort === "kind" ? ORDER.length : 1);
      const better = (a, b) => (score(a) === score(b) ? 0 : score(a) - score(b));
      return Object.keys(now.pair.maps)
        .filter((n) => (state.kind === "all" || now.kindOf(n) === state.kind) && n.toLowerCase().includes(find))
        .sort((a, b) => (state.sort === "name" ? 0 : rank(a) - rank(b) || better(a, b)) || (a < b ? -1 : 1));
    }

    function mark(card) {
      card.element.classList.toggle("xp-chosen", card.name === now.state.method);
      card.button.setAttribute("aria-pressed", String(card.name === now.state.method));
    }

    async function draw(card) {
      const { pair, desk } = now, found = await pair.map(card.name);
      if (pair !== now.pair || !card.seen) return;
      card.left.layers = now.layer(pair.evidence(found));
      card.right.layers = [
        ...now.layer(pair.picture("backdrop", now.dark())), ...now.layer(pair.top(found, now.stop()).picture),
      ];
      for (const panel of [card.left, card.right]) panel.draw(desk.view, desk.grid, desk.shape);
    }

    const watcher = new IntersectionObserver(
      (changes) => {
        for (const change of changes) {
          const card = cards.get(change.target.dataset.name);
          if (!card) continue;
          card.seen = change.isIntersecting;
          if (card.seen && now.pair) draw(card);
        }
      },
      { rootMargin: "200px" },
    );

    function card(name) {
      const element = make("li", "xp-card"), header = make("header");
      const button = make("button", "", name), score = make("span");
      const kind = now.kindOf(name), badge = kind === "method" ? [] : [make("small", "badge", kind)];
      const two = make("div", "xp-two"), left = X.panel({ small: true, label: "Map of " + name });
      const right = X.panel({ small: true, label: "Top share of " + name });
      button.type = "button";
      button.title = "Show " + name + " large";
      header.append(button, ...badge, score);
      two.append(left.element, right.element);
      element.append(header, two);
      element.dataset.name = name;
      for (const panel of [left, right]) {
        X.pointing.attach(panel.plot, now.desk, true);
        panel.plot.addEventListener("click", () => name !== now.state.method && now.choose(name));
      }
      button.addEventListener("click", () => {
        now.choose(name);
        $("desk").scrollIntoView({ block: "start" });
      });
      const made = { name, element, button, score, left, right, seen: false };
      cards.set(name, made);
      watcher.observe(element);
      return made;
    }

    // Lay the cards out; returns the names in their order.
    function show() {
      const order = sorted(), known = values(), by = now.metric();
      for (const [name, old] of cards) {
        if (!order.includes(name)) {
          watcher.unobserve(old.element);
          cards.delete(name);
        }
      }
      const shown = order.map((name) => {
        const one = cards.get(name) || card(name);
        one.score.textContent = by + " " + X.details.number(known[name]);
        mark(one);
        return one.element;
      });
      $("gallery").replaceChildren(...shown);
      $("count").textContent = order.length + " of " + Object.keys(now.pair.maps).length + " methods and controls";
      return order;
    }

    const visible = (act) => cards.forEach((one) => one.seen && act(one));
    return { sorted, show, mark: () => cards.forEach(mark), draw: () => visible(draw) };
  };

  X.gallery.KINDS = KINDS;
  X.gallery.SORTS = SORTS;
})();
