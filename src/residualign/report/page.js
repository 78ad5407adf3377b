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
    if (scale === "share") return (100 * value).toFixed(1) + "\u00a0%";
    if (scale === "ratio") return "×\u00a0" + value.toPrecision(value < 10 ? 2 : 3);
    return Number.isInteger(value) ? String(value) : value.toFixed(1);
  }

  const signed = (text) => text.replace("-", "−");

  // of "amplified or suppressed" the one that it is
  function named(measure, value) {
    if (measure.name !== "change" || !Number.isFinite(value) || value === 1) return measure.title;
    return value > 1 ? "Amplified" : "Suppressed";
  }

  function picture(name, alt) {
    const source = data.pictures[name];
    return source ? make("img", { src: "data:image/jpeg;base64," + source, alt, title: alt }) : null;
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
    map.style.setProperty("--most", Math.max(1.25, Math.min(2.9, 34 / data.n_layers)) + "rem");
    map.style.setProperty("--layers", data.n_layers);
    if (data.n_layers > 14) document.querySelector(".map-and-panel").classList.add("wide");
    if (buttons.length) buttons[0][0].tabIndex = 0;
  }

  function paint(name) {
    const measure = measures.get(name);
    let missing = 0;
    map.classList.toggle("small", buttons[0][0].clientWidth < 29);
    $("measure-told").textContent = measure.told;
    const values = data.units.filter((unit) => unit.layer !== null).map((unit) => unit.measures[name]).filter((value) => value !== null && value !== undefined);
    const ratio = measure.scale === "ratio";
    const logs = values.filter((value) => value > 0).map((value) => Math.abs(Math.log2(value)));
    // beyond a factor of four each way colors are full: one head at zero must not bleach all the others
    const widest = Math.min(2, Math.max(0.25, ...logs));
    const low = measure.scale === "share" ? 0 : Math.min(...values), high = Math.max(...values);
    for (const button of buttons.flat()) {
      const unit = units.get(button.dataset.unit), value = unit.measures[name];
      const absent = value === null || value === undefined;
      let depth = 0, against = false;
      missing += absent ? 1 : 0;
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
      button.setAttribute("aria-label", `${unit.label}: ${named(measure, value)} ${shown(value, measure.scale)}`);
    }
    $("absent-told").textContent = missing ? `Dashed cells: ${missing} ${missing === 1 ? "unit has" : "units have"} no value, because ${measure.absent}.` : "";
    const legend = $("legend");
    legend.className = "legend" + (ratio ? " ratio" : "");
    // colors are full at the ends, also of cells beyond them
    const below = low < 2 ** -widest * 0.999 ? "≤\u00a0" : "", above = high > 2 ** widest * 1.001 ? "≥\u00a0" : "";
    const ends = ratio ? [below + shown(2 ** -widest, "ratio"), above + shown(2 ** widest, "ratio")] : [shown(low, measure.scale), shown(high, measure.scale)];
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
      list.append(make("dt", {}, named(measure, unit.measures[measure.name])), make("dd", {}, shown(unit.measures[measure.name], measure.scale)));
    }
    tip.replaceChildren(make("b", {}, unit.label), list, ...(unit.texts.length ? [unit.texts.slice(0, 2).join("; ")] : []));
    tip.hidden = false;
    const box = button.getBoundingClientRect();
    const left = Math.min(window.scrollX + box.left, window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = window.scrollY + box.bottom + 6 + "px";
  }

  // ---- the selected unit --------------------------------------------------------------------------------------------
  const SVG = "http://www.w3.org/2000/svg";

  function draw(parent, name, attributes, text) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, typeof value === "number" ? value.toFixed(2) : value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  // components of little variance may have lambdas in the hundreds: without the logarithm they flatten all others
  const symlog = (value) => Math.sign(value) * Math.log1p(Math.abs(value));

  function lambdaTicks(low, high, height) {
    const all = [1, 0, ...[3, 10, 30, 100, 300, 1000, 3000].flatMap((size) => [size, -size])];
    const place = (value) => height * (symlog(high) - symlog(value)) / (symlog(high) - symlog(low));
    const ticks = [];
    for (const value of all) {
      if (value >= low && value <= high && ticks.every((tick) => Math.abs(place(tick) - place(value)) > 13)) ticks.push(value);
    }
    return ticks;
  }

  function spectrum(unit, width) {
    const components = unit.components, scaled = components.filter((one) => one.scale !== null);
    const left = 40, right = 8, top = 18, bars = 76, gap = 26, sticks = scaled.length ? 110 : 0, foot = 34;
    const height = top + bars + (sticks ? gap + sticks : 0) + foot;
    const svg = document.createElementNS(SVG, "svg");
    for (const [key, value] of Object.entries({ class: "spectrum", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" })) svg.setAttribute(key, value);
    const last = Math.max(1, components.length - 1), step = (width - left - right) / (last + 1);
    const x = (index) => left + (index + 0.5) * step;
    const most = Math.max(...components.map((one) => one.share), 1e-9);
    const told = (one) => `component ${one.index}: ${shown(one.share, "share")} of the variance` + (one.scale === null ? "" : `, ${data.lambda} ${signed(one.scale.toFixed(3))}`);
    draw(svg, "text", { x: 0, y: 11 }, "share of variance");
    for (const part of [0, 0.5, 1]) {
      const y = top + bars * (1 - part);
      draw(svg, "line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y });
      draw(svg, "text", { x: left - 6, y: y + 4, "text-anchor": "end" }, (100 * most * part).toFixed(most < 0.02 ? 1 : 0) + "\u00a0%");
    }
    for (const one of components) {
      const size = bars * one.share / most;
      draw(draw(svg, "rect", { class: "bar", x: x(one.index) - Math.max(0.4, step * 0.4), y: top + bars - size, width: Math.max(0.8, step * 0.8), height: size }), "title", {}, told(one));
    }
    if (sticks) {
      const start = top + bars + gap, values = scaled.map((one) => one.scale);
      const low = Math.min(0, ...values) - 0.2, high = Math.max(1.2, ...values) * 1.1;
      const y = (value) => start + sticks * (symlog(high) - symlog(value)) / (symlog(high) - symlog(low));
      draw(svg, "text", { x: 0, y: start - 8 }, `${data.lambda}, symmetric logarithmic axis`);
      for (const tick of lambdaTicks(low, high, sticks)) {
        draw(svg, "line", { class: tick === 1 ? "one" : "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) });
        draw(svg, "text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, signed(String(tick)));
      }
      for (const one of scaled) {
        const mark = draw(svg, "g", {});
        draw(mark, "line", { class: "stick", x1: x(one.index), x2: x(one.index), y1: y(1), y2: y(one.scale) });
        draw(mark, "circle", { cx: x(one.index), cy: y(one.scale), r: Math.max(1.2, Math.min(3, step * 0.4)) });
        draw(mark, "title", {}, told(one));
      }
    }
    const every = Math.max(1, Math.ceil(30 / step));
    for (let index = 0; index <= last && index < components.length; index += every) draw(svg, "text", { x: x(index), y: height - foot + 15, "text-anchor": "middle" }, String(index));
    draw(svg, "text", { x: left + (width - left - right) / 2, y: height - 3, "text-anchor": "middle" }, "principal component");
    return svg;
  }

  // the share of the unit's variance that a component has after adapting: variance times squared lambda
  function sharesAfter(unit) {
    const known = unit.components.reduce((sum, one) => sum + one.share, 0);
    const after = unit.components.map((one) => one.share * (one.scale === null ? data.rest : one.scale) ** 2);
    const total = after.reduce((sum, value) => sum + value, 0) + Math.max(0, 1 - known) * data.rest;
    return total > 0 ? after.map((value) => value / total) : after;
  }

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
    const name = { head: `head ${unit.head} of layer ${unit.layer}`, mlp: unit.layer === null ? "MLP of the attention pooling" : `MLP of layer ${unit.layer}`, embedding: "embedding" }[unit.kind];
    const scaled = unit.components.some((one) => one.scale !== null), others = scaled && data.components_of;
    const facts = make("ul", { class: "facts" });
    for (const measure of data.measures) {
      if (unit.measures[measure.name] === null || unit.measures[measure.name] === undefined) continue;
      let value = shown(unit.measures[measure.name], measure.scale);
      if (measure.name === "two_nn" && unit.two_nn_interval) value += ` (${unit.two_nn_interval.map((x) => x.toFixed(1)).join(" – ")})`;
      // the components with lambdas may be those of other images
      const title = named(measure, unit.measures[measure.name]) + (measure.name === "evr_first" && others ? " of the training images" : "");
      facts.append(make("li", { title: measure.told }, title.toLowerCase() + " ", make("b", {}, value)));
    }
    const heading = make("h3", { tabindex: "-1" }, unit.label, " ", make("span", { class: "told" }, name));
    const parts = [heading, facts];
    if (unit.texts.length) {
      const chips = make("ul", { class: "chips" });
      for (const text of unit.texts) chips.append(make("li", {}, text));
      parts.push(make("h4", {}, "What it represents"), chips);
    }
    const chart = make("figure", { class: "chart", role: "img", "aria-label": (scaled ? "Spectrum and lambdas of " : "Spectrum of ") + unit.label });
    if (unit.components.length) parts.push(make("h4", {}, scaled ? "Spectrum and lambdas" : "Spectrum"), chart);
    $("panel").replaceChildren(...parts);
    if (unit.components.length) chart.append(spectrum(unit, Math.max(220, chart.clientWidth)));
    const after = sharesAfter(unit), lines = [];
    for (const component of unit.components) {
      if (!component.positive && !component.negative) continue;
      const line = make("p", {}, make("b", {}, `Component ${component.index}`), ` · ${shown(component.share, "share")} of the unit’s variance`);
      if (component.scale !== null) {
        const factor = make("b", { class: component.scale > 1 ? "up" : "down" }, signed(component.scale.toFixed(2)));
        line.append(` before, ${shown(after[component.index], "share")} after · ${data.lambda} `, factor);
      }
      lines.push(make("div", { class: "component" }, line, make("div", { class: "ends" }, end("positive end", component.positive), end("negative end", component.negative))));
    }
    if (others && lines.length) {
      lines.unshift(make("p", { class: "told" }, `Principal components of ${data.components_of}; their shares are of the variance over the training images.`));
    }
    $("components").replaceChildren(...lines);
    if (focus) heading.focus({ preventScroll: true });
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
    window.addEventListener("resize", () => {
      paint(document.querySelector("input[name=measure]:checked").value);
      if (chosen) open(chosen, false);
    });
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

  // ---- images whose class changed -----------------------------------------------------------------------------------
  const cards = $("cards");
  if (cards) {
    const given = [...cards.children], controls = $("changed-controls");
    const orders = {
      given: () => 0,
      change: (a, b) => b.dataset.change - a.dataset.change,
      probability: (a, b) => b.dataset.probability - a.dataset.probability,
      class: (a, b) => a.dataset.class - b.dataset.class,
    };
    const arrange = () => {
      const kind = controls.querySelector("input:checked").value, name = $("changed-class").value;
      let left = 0;
      for (const card of given) {
        card.hidden = (kind !== "all" && card.dataset.kind !== kind) || (name !== "" && card.dataset.class !== name);
        left += card.hidden ? 0 : 1;
      }
      // the sort is stable: equal ones stay in the order of the page
      cards.append(...[...given].sort(orders[$("changed-sort").value]));
      $("changed-told").textContent = `${left} of ${given.length} images`;
    };
    controls.addEventListener("change", arrange);
    controls.querySelector("input").checked = true;
    for (const select of controls.querySelectorAll("select")) select.selectedIndex = 0;
    controls.hidden = false;
    arrange();
  }

  document.documentElement.dataset.ready = "true";
})();
