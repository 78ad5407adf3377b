"use strict";
// Text from models and data only ever becomes text nodes and attributes; nothing here writes markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  for (const unit of data.units) {
    unit.components = unit.shares.map((share, index) => {
      const [positive, negative] = unit.ends[index] || [null, null];
      return { index, share, scale: unit.scales[index], positive, negative };
    });
  }
  const units = new Map(data.units.map((unit) => [unit.label, unit]));
  const measures = new Map(data.measures.map((measure) => [measure.name, measure]));
  const $ = (id) => document.getElementById(id);

  function make(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  function shown(value, scale) {
    if (value === null || value === undefined) return "–";
    if (scale === "share") return (100 * value).toFixed(1) + " %";
    if (scale === "ratio") return "× " + value.toPrecision(value < 10 ? 2 : 3);
    return Number.isInteger(value) ? String(value) : value.toFixed(1);
  }

  function picture(name, alt) {
    const source = data.pictures[name];
    return source ? make("img", { src: "data:image/jpeg;base64," + source, alt, loading: "lazy", title: alt }) : null;
  }

  // ---- charts -------------------------------------------------------------------------------------------------------
  // the interpreter runs expressions without eval, which the page's own policy forbids
  const options = { actions: false, renderer: "svg", ast: true, tooltip: { theme: "custom" } };

  function draw(node, spec, datasets) {
    const whole = datasets ? { ...spec, datasets } : spec;
    return window.vegaEmbed(node, whole, options).catch((error) => {
      node.append(make("p", { class: "told" }, "This chart could not be drawn: " + error.message));
    });
  }

  const drawn = [];
  for (const node of document.querySelectorAll("figure.chart")) {
    drawn.push(draw(node, data.charts[node.dataset.chart]));
  }

  for (const image of document.querySelectorAll("img[data-picture]")) {
    const source = data.pictures[image.dataset.picture];
    if (source) image.src = "data:image/jpeg;base64," + source;
  }

  // ---- the map ------------------------------------------------------------------------------------------------------
  const map = $("map");
  const buttons = [];  // rows of buttons, as the arrow keys see them
  let chosen = null;

  function buildMap() {
    const head = make("tr", {}, make("td"));
    for (let layer = 0; layer < data.n_layers; layer++) head.append(make("th", { scope: "col" }, String(layer)));
    map.append(make("thead", {}, head));
    const body = make("tbody");
    const rows = [];
    for (let h = 0; h < data.n_heads; h++) rows.push({ name: "H" + h, of: (layer) => `L${layer}.H${h}` });
    rows.push({ name: "MLP", of: (layer) => `L${layer}.mlp`, apart: true });
    for (const { name, of, apart } of rows) {
      const row = make("tr", apart ? { class: "apart" } : {}, make("th", { scope: "row" }, name));
      const cells = [];
      for (let layer = 0; layer < data.n_layers; layer++) {
        const unit = units.get(of(layer));
        if (!unit) { row.append(make("td")); continue; }
        const button = make("button", { type: "button", tabindex: "-1", "data-unit": unit.label, "aria-selected": "false" });
        row.append(make("td", { role: "gridcell" }, button));
        cells.push(button);
      }
      if (cells.length) { buttons.push(cells); body.append(row); }
    }
    map.append(body);
    const side = Math.max(1.25, Math.min(2.9, 34 / data.n_layers));
    map.style.setProperty("--side", side + "rem");
    map.classList.toggle("small", side < 1.9);
    if (data.n_layers > 14) document.querySelector(".map-and-panel").classList.add("wide");
    if (buttons.length) buttons[0][0].tabIndex = 0;
  }

  function paint(name) {
    const measure = measures.get(name);
    $("measure-told").textContent = measure.told;
    const values = data.units.filter((unit) => unit.layer !== null).map((unit) => unit.measures[name]).filter((value) => value !== null && value !== undefined);
    const ratio = measure.scale === "ratio";
    const logs = values.filter((value) => value > 0).map((value) => Math.abs(Math.log2(value)));
    // beyond a factor of four each way colours are full: one head at zero must not bleach all the others
    const widest = Math.min(2, Math.max(0.25, ...logs));
    const low = measure.scale === "share" ? 0 : Math.min(...values), high = Math.max(...values);
    for (const button of buttons.flat()) {
      const unit = units.get(button.dataset.unit), value = unit.measures[name];
      const absent = value === null || value === undefined;
      let depth = 0, against = false;
      if (!absent && ratio) {
        const log = value > 0 ? Math.log2(value) : -widest;
        depth = Math.min(1, Math.abs(log) / widest);
        against = log < 0;
      } else if (!absent && high > low) depth = (value - low) / (high - low);
      button.style.setProperty("--v", depth.toFixed(3));
      button.classList.toggle("deep", depth > 0.6);
      button.classList.toggle("against", against);
      button.classList.toggle("absent", absent);
      button.textContent = map.classList.contains("small") || absent ? "" : brief(value, measure.scale);
      button.setAttribute("aria-label", `${unit.label}: ${measure.title} ${shown(value, measure.scale)}`);
    }
    const legend = $("legend");
    legend.className = "legend" + (ratio ? " ratio" : "");
    const ends = ratio ? [shown(2 ** -widest, "ratio"), shown(2 ** widest, "ratio")] : [shown(low, measure.scale), shown(high, measure.scale)];
    legend.replaceChildren(ends[0], make("i"), ends[1]);
  }

  function brief(value, scale) {
    if (scale === "share") return (100 * value).toFixed(value < 0.0995 ? 1 : 0);
    return value >= 10 ? value.toFixed(0) : value.toFixed(value < 1 && scale === "ratio" ? 2 : 1);
  }

  // ---- tooltip ------------------------------------------------------------------------------------------------------
  const tip = $("tip");

  function showTip(button) {
    const unit = units.get(button.dataset.unit);
    const list = make("dl");
    for (const measure of data.measures) {
      list.append(make("dt", {}, measure.title), make("dd", {}, shown(unit.measures[measure.name], measure.scale)));
    }
    tip.replaceChildren(make("b", {}, unit.label), list, ...(unit.texts.length ? [unit.texts.slice(0, 2).join("; ")] : []));
    tip.hidden = false;
    const box = button.getBoundingClientRect();
    const left = Math.min(window.scrollX + box.left, window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = window.scrollY + box.bottom + 6 + "px";
  }

  // ---- the panel ----------------------------------------------------------------------------------------------------
  function end(title, side) {
    if (!side) return null;
    const strip = make("div", { class: "strip" });
    for (const name of side.pictures) { const image = picture(name, title); if (image) strip.append(image); }
    return make("div", {}, make("h5", {}, title), side.texts.length ? make("p", {}, side.texts.join("; ")) : null, strip);
  }

  function open(label, focus) {
    const unit = units.get(label);
    if (!unit) return;
    chosen = label;
    for (const button of buttons.flat()) {
      const mine = button.dataset.unit === label;
      button.setAttribute("aria-selected", String(mine));
      if (mine) rove(button);
    }
    const name = { head: `Head ${unit.head} of layer ${unit.layer}`, mlp: unit.layer === null ? "MLP of the pooling" : `MLP of layer ${unit.layer}`, embedding: "Embedding" }[unit.kind];
    const facts = make("ul", { class: "facts" });
    for (const measure of data.measures) {
      if (unit.measures[measure.name] === null || unit.measures[measure.name] === undefined) continue;
      let value = shown(unit.measures[measure.name], measure.scale);
      if (measure.name === "two_nn" && unit.two_nn_interval) value += ` (${unit.two_nn_interval.map((x) => x.toFixed(1)).join(" – ")})`;
      facts.append(make("li", { title: measure.told }, measure.title.toLowerCase() + " ", make("b", {}, value)));
    }
    const chart = make("figure", { class: "chart", role: "img", "aria-label": "Spectrum and lambdas of " + unit.label });
    const parts = [make("h3", {}, unit.label, " ", make("span", { class: "told" }, name)), facts];
    if (unit.texts.length) {
      const chips = make("ul", { class: "chips" });
      for (const text of unit.texts) chips.append(make("li", {}, text));
      parts.push(make("h4", {}, "What it is about"), chips);
    }
    parts.push(make("h4", {}, unit.components.some((c) => c.scale !== null) ? "Spectrum and lambdas" : "Spectrum"), chart);
    for (const component of unit.components) {
      if (!component.positive && !component.negative) continue;
      const line = make("p", {}, make("b", {}, `Component ${component.index}`), ` · ${shown(component.share, "share")} of the variance`);
      if (component.scale !== null) line.append(" · lambda ", make("b", { class: component.scale > 1 ? "up" : "down" }, component.scale.toFixed(2)));
      parts.push(make("div", { class: "component" }, line, make("div", { class: "ends" }, end("one end", component.positive), end("the other end", component.negative))));
    }
    $("panel").replaceChildren(...parts);
    // charts above one another cannot fit themselves to their container
    const width = Math.max(160, chart.clientWidth - 76);
    const spec = { ...data.component_chart, vconcat: data.component_chart.vconcat.map((part) => ({ ...part, width })) };
    draw(chart, spec, { components: unit.components.map(({ index, share, scale }) => ({ index, share, scale })) });
    if (focus) $("panel").focus({ preventScroll: true });
  }

  function rove(button) {
    for (const other of buttons.flat()) other.tabIndex = -1;
    button.tabIndex = 0;
  }

  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

  function onKey(event) {
    const button = event.target.closest("button");
    if (event.key === "Escape") { tip.hidden = true; return; }
    if (!button || !(event.key in moves)) return;
    event.preventDefault();
    const row = buttons.findIndex((cells) => cells.includes(button)), column = buttons[row].indexOf(button);
    const [down, right] = moves[event.key];
    const cells = buttons[Math.max(0, Math.min(buttons.length - 1, row + down))];
    const next = cells[Math.max(0, Math.min(cells.length - 1, column + right))];
    rove(next);
    next.focus();
  }

  if (map) {
    buildMap();
    const first = document.querySelector("input[name=measure]:checked") || document.querySelector("input[name=measure]");
    if (first) { first.checked = true; paint(first.value); }
    document.querySelector(".measures").addEventListener("change", (event) => paint(event.target.value));
    map.addEventListener("keydown", onKey);
    map.addEventListener("click", (event) => { const button = event.target.closest("button"); if (button) { tip.hidden = true; open(button.dataset.unit, true); history.replaceState(null, "", "#" + button.dataset.unit); } });
    map.addEventListener("mouseover", (event) => { const button = event.target.closest("button"); if (button) showTip(button); });
    map.addEventListener("mouseleave", () => { tip.hidden = true; });
    map.addEventListener("focusin", (event) => { const button = event.target.closest("button"); if (button && button.matches(":focus-visible")) showTip(button); });
    map.addEventListener("focusout", () => { tip.hidden = true; });
    const fromAddress = (scroll) => {
      const label = decodeURIComponent(location.hash.slice(1));
      if (!units.has(label)) return false;
      open(label, false);
      if (scroll) $("units").scrollIntoView();
      return true;
    };
    window.addEventListener("hashchange", () => fromAddress(true));
    if (!fromAddress(true) && data.first_unit) open(data.first_unit, false);
  }

  Promise.all(drawn).then(() => { document.documentElement.dataset.ready = "true"; });
})();
