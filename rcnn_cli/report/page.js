// The light/dark button and the gallery. page.html includes this file in the page.
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
  setRange();
})();
