// Sorting, filtering and choosing columns of a board. The page is whole without it. Blocks (methods, floors ...) stay apart.
(function () {
  "use strict";
  var table = document.getElementById("table");
  var form = document.querySelector("form.controls");
  if (!table || !form) return;
  var bodies = Array.prototype.slice.call(table.tBodies);
  var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
  var status = form.querySelector(".status");
  var sorted = { place: -1, way: "" };

  function rows(body) {
    return Array.prototype.slice.call(body.rows).filter(function (row) { return !row.classList.contains("block"); });
  }

  bodies.forEach(function (body) { rows(body).forEach(function (row, i) { row.dataset.first = i; }); });

  // --- sorting: a button in every header; first click best first, then the other way, then as it was -------------------
  function value(row, place, text) {
    if (text) return row.dataset.name.toLowerCase();
    var v = row.cells[place].dataset.v;
    return v === "" || v === undefined ? null : Number(v);
  }

  function sortBy(place) {
    var kind = heads[place].dataset.sort;
    var first = kind === "higher" ? "descending" : "ascending";
    var other = first === "ascending" ? "descending" : "ascending";
    var way = sorted.place !== place ? first : sorted.way === first ? other : sorted.way === other ? "none" : first;
    sorted = { place: place, way: way };
    heads.forEach(function (head, i) { head.setAttribute("aria-sort", i === place ? way : "none"); });
    bodies.forEach(function (body) {
      var found = rows(body);
      found.sort(function (a, b) {
        var back = Number(a.dataset.first) - Number(b.dataset.first);
        if (way === "none") return back;
        var x = value(a, place, kind === "text"), y = value(b, place, kind === "text");
        if (x === null || y === null) return x === y ? back : x === null ? 1 : -1; // the unknown last, either way
        if (x === y) return back;
        return (x < y ? -1 : 1) * (way === "ascending" ? 1 : -1);
      });
      found.forEach(function (row) { body.appendChild(row); });
    });
    var what = heads[place].querySelector("button").firstElementChild.textContent;
    say(way === "none" ? "Order as it was" : "Sorted by " + what + ", " + way);
  }

  heads.forEach(function (head, place) {
    var button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    if (!head.firstElementChild) {
      var word = document.createElement("span");
      word.textContent = head.textContent.replace(/\u00ad/g, "");
      head.textContent = "";
      head.appendChild(word);
    }
    while (head.firstChild) button.appendChild(head.firstChild);
    head.appendChild(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", function () { sortBy(place); });
  });

  // --- filters -----------------------------------------------------------------------------------------------------------
  function checked(name) {
    return Array.prototype.slice.call(form.querySelectorAll("input[name=" + name + "]:checked"))
      .map(function (box) { return box.value; });
  }

  function say(text) {
    var shown = 0, all = 0;
    bodies.forEach(function (body) {
      rows(body).forEach(function (row) { all += 1; if (!row.hidden && !body.hidden) shown += 1; });
    });
    status.textContent = shown + " of " + all + " rows" + (text ? ". " + text + "." : "");
  }

  function filter() {
    var words = form.elements.find.value.toLowerCase().split(/\s+/).filter(Boolean);
    var kinds = checked("kind"), least = Number(form.elements.coverage.value);
    bodies.forEach(function (body) {
      var any = false;
      rows(body).forEach(function (row) {
        var name = row.dataset.name.toLowerCase();
        var fits = words.every(function (word) { return name.indexOf(word) >= 0; });
        row.hidden = !fits || Number(row.dataset.coverage) < least - 1e-9;
        any = any || !row.hidden;
      });
      body.hidden = !any || kinds.indexOf(body.dataset.kind) < 0;
    });
    say("");
  }

  function columns() {
    var shown = checked("column");
    var boxes = form.querySelectorAll("input[name=column]");
    Array.prototype.forEach.call(table.querySelectorAll("[data-col]"), function (cell) {
      var here = shown.indexOf(cell.dataset.col) >= 0;
      cell.classList.toggle("away", !here);
      cell.classList.toggle("here", here); // board.css hides the rest before this runs: laying out 150 columns takes seconds
    });
    form.querySelector(".count").textContent = shown.length + " of " + boxes.length;
  }

  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.addEventListener("input", function (event) { if (event.target.name === "column") columns(); else filter(); });
  form.addEventListener("click", function (event) {
    var which = event.target.dataset ? event.target.dataset.columns : undefined;
    if (!which) return;
    Array.prototype.forEach.call(form.querySelectorAll("input[name=column]"), function (box) {
      box.checked = which === "all" || box.hasAttribute("data-usual");
    });
    columns();
  });
  var panel = form.querySelector("details.columns");
  panel.addEventListener("keydown", function (event) {
    if (event.key === "Escape" && panel.open) { panel.open = false; panel.firstElementChild.focus(); }
  });
  document.addEventListener("click", function (event) { if (!panel.contains(event.target)) panel.open = false; });

  form.hidden = false;
  filter(); // a reloaded page keeps what was typed
  columns();
})();
