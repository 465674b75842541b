// The light/dark button, sorting of tables, the maps of features, and the gallery. page.html includes this file in the page.
"use strict";

(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => {
    try {
      return localStorage.getItem("rcnn-report-theme");
    } catch {
      return null; // some browsers keep no storage for pages opened from disk
    }
  };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => (button.textContent = isDark() ? "Light" : "Dark");
  if (remembered()) root.dataset.theme = remembered();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("rcnn-report-theme", root.dataset.theme);
    } catch {
      // then the choice lasts until the page is closed
    }
    label();
  });
  system.addEventListener("change", label);
  button.hidden = false;
  label();
})();

// A click on a heading sorts by its column: first the other way round for numbers (largest first), then reversed, then
// as the table was.
(() => {
  const empty = new Set(["", "-", "\u2013"]);
  const ORDERS = { none: "first", first: "second", second: "none" };

  function valueOf(cell) {
    if (cell.dataset.value) return Number(cell.dataset.value);
    const main = [...cell.childNodes].filter((node) => node.nodeName !== "SMALL").map((node) => node.textContent).join("");
    const text = main.trim();
    const number = Number(text.replace(/,/g, "").replace("\u2212", "-").replace(/\s*%$/, ""));
    return empty.has(text) ? null : Number.isNaN(number) ? text : number;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function enable(table) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    const state = headings.map(() => "none");

    function sort(column) {
      state.forEach((_, place) => (state[place] = place === column ? ORDERS[state[place]] : "none"));
      const values = new Map(rows.map((row) => [row, valueOf(row.cells[column])]));
      const known = rows.filter((row) => values.get(row) !== null);
      const unknown = rows.filter((row) => values.get(row) === null);
      const falling = known.every((row) => typeof values.get(row) === "number") === (state[column] === "first");
      const sign = falling ? -1 : 1;
      const sorted = [...known].sort((a, b) => sign * compare(values.get(a), values.get(b)));
      body.append(...(state[column] === "none" ? rows : [...sorted, ...unknown]));
      headings.forEach((heading, place) => {
        if (state[place] === "none") heading.removeAttribute("aria-sort");
        else heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      });
    }

    headings.forEach((heading, column) => {
      if (heading.nodeName !== "TH") return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(column));
      heading.append(button);
    });
  }

  for (const table of document.querySelectorAll("main table:not(.unsorted)"))
    if (table.tHead && table.tBodies[0].rows.length > 2) enable(table);
})();

// Maps of features: the object nearest to the pointer, or that the arrow keys lead to, is shown.
(() => {
  const source = document.getElementById("points-data");
  if (!source) return;
  const maps = JSON.parse(source.textContent);
  const [X, Y, CLASS, IMAGE, THUMBNAIL] = [0, 1, 2, 3, 4];
  const REACH = 30; // units of the drawing
  const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function enable(holder) {
    const points = maps[Number(holder.dataset.map)];
    const svg = holder.querySelector("svg");
    const marks = [...svg.querySelectorAll(".mark")];
    const card = holder.querySelector(".card");
    const legend = document.querySelector(`.classes[data-map="${holder.dataset.map}"]`);
    let chosen = -1;
    let only = null;
    for (const title of svg.querySelectorAll("title")) title.remove(); // the card says more
    const visible = (place) => only === null || points[place][CLASS] === only;

    function show(place) {
      if (chosen >= 0) marks[chosen].classList.remove("chosen");
      chosen = place;
      card.hidden = place < 0;
      if (place < 0) return;
      const [x, y, name, image, thumbnail] = points[place];
      marks[place].classList.add("chosen");
      const picture = document.createElement("img");
      picture.alt = "";
      if (thumbnail) picture.src = thumbnail;
      const words = document.createElement("span");
      words.textContent = `${name}, ${image}`;
      card.replaceChildren(...(thumbnail ? [picture] : []), words);
      const scale = svg.clientWidth / svg.viewBox.baseVal.width;
      const left = x * scale + 14 + card.offsetWidth > holder.clientWidth ? x * scale - 14 - card.offsetWidth : x * scale + 14;
      const top = y * scale - card.offsetHeight / 2;
      card.style.left = `${Math.max(2, Math.min(left, holder.clientWidth - card.offsetWidth - 2))}px`;
      card.style.top = `${Math.max(2, Math.min(top, holder.clientHeight - card.offsetHeight - 2))}px`;
    }

    function best(measure) {
      let [found, least] = [-1, Infinity];
      points.forEach((_, place) => {
        const value = visible(place) ? measure(place) : Infinity;
        if (value < least) [found, least] = [place, value];
      });
      return found;
    }

    function nearest(event) {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      const reach = Math.max(REACH, 22 * scale);
      return best((place) => {
        const distance = Math.hypot(points[place][X] - x, points[place][Y] - y);
        return distance <= reach ? distance : Infinity;
      });
    }

    // The next object in a direction: those off to the side count as twice as far.
    function next([right, down]) {
      if (chosen < 0) return best((place) => points[place][X]);
      const found = best((place) => {
        const [dx, dy] = [points[place][X] - points[chosen][X], points[place][Y] - points[chosen][Y]];
        const along = dx * right + dy * down;
        return place !== chosen && along > 0 ? along + 2 * Math.abs(dx * down) + 2 * Math.abs(dy * right) : Infinity;
      });
      return found < 0 ? chosen : found;
    }

    svg.addEventListener("pointermove", (event) => show(nearest(event)));
    svg.addEventListener("pointerdown", (event) => show(nearest(event)));
    svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show(-1));
    holder.tabIndex = 0;
    holder.setAttribute("role", "application");
    holder.setAttribute("aria-label", `${svg.getAttribute("aria-label")}. The arrow keys lead from one to the next.`);
    svg.setAttribute("aria-hidden", "true");
    card.setAttribute("role", "status");
    holder.addEventListener("keydown", (event) => {
      if (event.key === "Escape") show(-1);
      if (!WAYS[event.key]) return;
      event.preventDefault();
      show(next(WAYS[event.key]));
    });
    holder.addEventListener("blur", () => show(-1));

    for (const entry of legend.children) {
      const name = entry.querySelector(".name").textContent;
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.append(...entry.childNodes);
      button.addEventListener("click", () => {
        only = only === name ? null : name;
        for (const each of legend.querySelectorAll("button"))
          each.setAttribute("aria-pressed", String(only !== null && each === button));
        marks.forEach((circle, place) => circle.classList.toggle("faint", !visible(place)));
        show(-1);
      });
      entry.append(button);
    }
  }

  for (const holder of document.querySelectorAll(".map")) enable(holder);
  for (const help of document.querySelectorAll(".map-help")) help.hidden = false;
})();

(() => {
  const source = document.getElementById("gallery-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const PAGE = 48;
  const SVG = "http://www.w3.org/2000/svg";
  const [RUN, CLASS, KIND, IMAGE, BOX, SCORE, PRECISION, OVERLAP, WINDOW] = [0, 1, 2, 3, 4, 8, 9, 10, 11];
  const MISSED = data.kinds.indexOf("missed");
  const at = (id) => document.getElementById(id);
  const slider = at("threshold");
  let matched = [];
  let drawn = 0;
  let viewed = 0;

  const chosen = () => ({
    run: Number(at("run-choice").value),
    label: Number(at("class-choice").value),
    column: document.querySelector("input[name=measure]:checked").value === "score" ? SCORE : PRECISION,
    kinds: new Set([...document.querySelectorAll("input[name=kind]:checked")].map((one) => Number(one.value))),
    threshold: Number(slider.value),
  });
  const ofRun = (want) => data.items.filter((item) => item[RUN] === want.run);
  const ofClass = (items, want) => items.filter((item) => want.label < 0 || item[CLASS] === want.label);

  // A missed object has no score, so no threshold hides it.
  const passes = (item, want) =>
    item[KIND] === MISSED ||
    (item[want.column] === null ? want.threshold <= Number(slider.min) : item[want.column] >= want.threshold);

  function setRange() {
    const want = chosen();
    const values = ofClass(ofRun(want), want).map((item) => item[want.column]).filter((value) => value !== null);
    const low = want.column === PRECISION ? 0 : Math.floor(100 * Math.min(0, ...values)) / 100;
    const high = want.column === PRECISION ? 1 : Math.ceil(100 * Math.max(0.01, ...values)) / 100;
    slider.min = low;
    slider.max = high;
    slider.step = 0.01;
    slider.value = low;
    update();
  }

  function update() {
    const want = chosen();
    const all = ofRun(want);
    const passed = ofClass(all, want).filter((item) => passes(item, want));
    const rank = (item) => (item[KIND] === MISSED || item[want.column] === null ? -1e9 : item[want.column]);
    matched = passed
      .filter((item) => want.kinds.has(item[KIND]))
      .map((item, place) => [item, place])
      .sort(([a, i], [b, j]) => rank(b) - rank(a) || (b[SCORE] ?? 0) - (a[SCORE] ?? 0) || i - j)
      .map(([item]) => item);
    for (const span of document.querySelectorAll("[data-count]"))
      span.textContent = passed.filter((item) => item[KIND] === Number(span.dataset.count)).length;
    const shown = want.column === PRECISION ? `${Math.round(100 * want.threshold)} %` : number(want.threshold.toFixed(2));
    at("threshold-value").textContent = shown;
    slider.setAttribute("aria-valuetext", shown);
    at("tiles").replaceChildren();
    drawn = 0;
    draw();
    if (!matched.length) at("tiles").append(nothing());
    tell();
  }

  function nothing() {
    const notice = document.createElement("li");
    notice.className = "nothing";
    notice.textContent = "No detection: choose another class, more kinds or a lower threshold.";
    return notice;
  }

  function tell() {
    const [some, all] = [matched.length, ofRun(chosen()).length].map((count) => count.toLocaleString("en"));
    const below = drawn < matched.length ? `, the first ${drawn} below` : "";
    const inAll = data.totals[chosen().run].reduce((sum, one) => sum + one, 0);
    at("count").textContent = `${some} of ${all} shown${below}; the run has ${inAll.toLocaleString("en")} in all`;
  }

  function draw() {
    const next = matched.slice(drawn, drawn + PAGE);
    at("tiles").append(...next.map((item, place) => tile(item, drawn + place)));
    drawn += next.length;
    at("more").hidden = drawn >= matched.length;
  }

  function element(name, attributes, ...children) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function outline(box, name) {
    const [x, y, right, bottom] = box;
    const place = { x, y, width: right - x, height: bottom - y };
    return [element("rect", { class: "halo", ...place }), element("rect", { class: name, ...place })];
  }

  function picture(item, viewBox, others) {
    const [, , , objects] = data.images[item[IMAGE]];
    const kind = `box-${data.kinds[item[KIND]].toLowerCase()}`;
    return element(
      "svg",
      { viewBox: viewBox.join(" "), class: "crop", "aria-hidden": "true", focusable: "false" },
      element("use", { href: `#picture-${item[IMAGE]}` }),
      ...objects.flatMap((one) => outline(one, "truth")),
      ...others,
      ...outline(item.slice(BOX, BOX + 4), kind),
    );
  }

  const number = (value) => String(value).replace("-", "\u2212");
  const percent = (value) => (value === null ? "unknown" : `${Math.round(100 * value)} %`);

  function tile(item, place) {
    const name = data.classes[item[CLASS]];
    const kind = data.kinds[item[KIND]];
    const values = item[KIND] === MISSED ? "not found" : `${number(item[SCORE].toFixed(2))}, precision ${percent(item[PRECISION])}`;
    const made = document.createElement("button");
    made.type = "button";
    made.className = "tile";
    made.dataset.kind = kind;
    made.dataset.class = name;
    const words = document.createElement("span");
    words.className = "words";
    words.textContent = `${name} · ${kind}`;
    const note = document.createElement("span");
    note.className = "note";
    note.textContent = values;
    words.append(note);
    made.setAttribute("aria-label", `${name}, ${kind}, ${values}, image ${data.images[item[IMAGE]][0]}`);
    made.append(picture(item, [item[WINDOW], item[WINDOW + 1], item[WINDOW + 2], item[WINDOW + 2]], []), words);
    made.addEventListener("click", () => view(place));
    const listed = document.createElement("li");
    listed.append(made);
    return listed;
  }

  function view(place) {
    viewed = place;
    const item = matched[place];
    const [id, width, height, objects] = data.images[item[IMAGE]];
    const size = Math.max(width, height) / 34;
    const words = objects.map((one) =>
      element("text", { class: "truth-words", x: one[0] + 2, y: Math.max(size, one[1] - size / 4), "font-size": size },
        data.classes[one[4]] + (one[5] ? " (difficult)" : "")));
    const whole = picture(item, [0, 0, width, height], words);
    whole.setAttribute("role", "img");
    whole.removeAttribute("aria-hidden");
    whole.setAttribute("aria-label", `Image ${id} with this box and the annotated objects`);
    at("viewer-title").textContent = `${data.classes[item[CLASS]]} · ${data.kinds[item[KIND]]}`;
    at("viewer-picture").replaceChildren(whole);
    const values = { image: id, run: data.runs.find((run) => run.number === item[RUN]).name };
    if (item[KIND] !== MISSED) {
      values.score = number(item[SCORE]);
      values.precision = percent(item[PRECISION]);
      values["IoU with the nearest object"] = String(item[OVERLAP]);
    }
    at("viewer-values").replaceChildren(
      ...Object.entries(values).map(([name, value]) => {
        const pair = document.createElement("div");
        const term = document.createElement("dt");
        const told = document.createElement("dd");
        term.textContent = name;
        told.textContent = value;
        pair.append(term, told);
        return pair;
      }),
    );
    at("previous").disabled = place === 0;
    at("next").disabled = place + 1 === matched.length;
    if (!at("viewer").open) at("viewer").showModal();
  }

  const step = (by) => matched[viewed + by] && view(viewed + by);
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("close").addEventListener("click", () => at("viewer").close());
  at("viewer").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  at("more").addEventListener("click", () => {
    const first = drawn;
    draw();
    tell();
    at("tiles").children[first].firstElementChild.focus();
  });
  for (const id of ["run-choice", "class-choice"]) at(id).addEventListener("change", setRange);
  for (const one of document.querySelectorAll("input[name=measure]")) one.addEventListener("change", setRange);
  for (const one of document.querySelectorAll("input[name=kind]")) one.addEventListener("change", update);
  slider.addEventListener("input", update);
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("controls").hidden = false;

  // "#gallery&run=0&class=cat&kind=Loc,BG" shows these; what it does not say stays as it is.
  function follow(focuses) {
    if (!location.hash.startsWith("#gallery&")) return false;
    const want = new URLSearchParams(location.hash.slice("#gallery&".length));
    if (data.runs.some((run) => String(run.number) === want.get("run"))) at("run-choice").value = want.get("run");
    if (want.has("class")) at("class-choice").value = String(data.classes.indexOf(want.get("class")));
    const kinds = want.has("kind") ? want.get("kind").split(",") : null;
    for (const one of document.querySelectorAll("input[name=kind]"))
      if (kinds) one.checked = kinds.includes(data.kinds[Number(one.value)]);
    setRange();
    at("gallery").scrollIntoView();
    if (focuses) at("run-choice").focus({ preventScroll: true });
    return true;
  }
  window.addEventListener("hashchange", () => follow(true));
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#gallery&"]');
    if (link && link.hash === location.hash) follow(true); // no change of the address, so no event
  });
  if (!follow(false)) setRange();
})();
