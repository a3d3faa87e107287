// The engine of the book's figures: controls, drawing and dragging. A figure is a function of a stage:
//
//     poolnb.figure("softmax", "soft", (stage) => { ...; stage.draw(() => { ... }); });
//
// It runs for every <div class="interactive" data-figure="softmax">, in the colour of the operator `soft`. Controls are
// native; what is dragged in a drawing is a slider for the keyboard and for screen readers too. Colours come from CSS.
"use strict";

(() => {

const { range } = window.poolnb;
const SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉";
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// A number as the book prints it, with a true minus.
function num(value, digits = 2) {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : value < 0 ? "−∞" : "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text.replace("-", "−");
}

function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A linear map from [a, b] to [c, d]; `.back` is its inverse.
function scale([a, b], [c, d]) {
  const map = (value) => c + ((value - a) / (b - a)) * (d - c);
  map.back = (place) => a + ((place - c) / (d - c)) * (b - a);
  return map;
}

// ---- a drawing ----

class Panel {
  constructor(stage, label, width, height) {
    Object.assign(this, { stage, height });
    this.drawing = svg("g", { "aria-hidden": "true" });
    this.knobs = svg("g");
    this.root = svg("svg", { class: "play-panel", role: "img", "aria-label": label }, this.drawing, this.knobs);
    this.root.style.flexBasis = `${width}px`;
    stage.panels.append(this.root);
    stage.drawings.push(this);
  }

  // Empty the drawing. Its unit is one pixel of the page at any width, so that labels stay legible on a phone.
  clear(height = this.height) {
    this.width = Math.max(120, this.root.clientWidth || 300);
    this.root.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    this.root.style.height = `${height}px`;
    this.drawing.replaceChildren();
  }

  add(name, attributes, look, style = "") {
    this.drawing.append(svg(name, { ...attributes, class: look, style }));
  }

  line(x1, y1, x2, y2, look = "axis", style) {
    this.add("line", { x1, y1, x2, y2 }, look, style);
  }

  rect(x, y, width, height, look, style) {
    this.add("rect", { x, y, width, height }, look, style);
  }

  dot(cx, cy, r = 4.5, look = "ink") {
    this.add("circle", { cx, cy, r }, look);
  }

  text(x, y, words, anchor = "start", look = "") {
    this.drawing.append(svg("text", { x, y, "text-anchor": anchor, class: look }, words));
  }

  // Draw axes: `x` and `y` are the first and the last value. Returns the `Plot`.
  plot(options) {
    return new Plot(this, options);
  }
}

// What is drawn in the units of a panel's axes. `x` and `y` turn values into places.
class Plot {
  constructor(panel, { x = [0, 1], y = [0, 1], left = 38, right = 10, top = 26, bottom = panel.height - 40, ...words }) {
    const { xTicks = [], yTicks = [], xTitle = "", yTitle = "" } = words;
    right = panel.width - right;
    Object.assign(this, { panel, left, right, top, bottom, domain: x });
    this.x = scale(x, [left, right]);
    this.y = scale(y, [bottom, top]);
    panel.line(left, bottom, right, bottom);
    if (yTitle) panel.line(left, bottom, left, top);
    const short = (tick) => num(tick, Number.isInteger(tick) ? 0 : 1);
    for (const tick of xTicks) {
      const at = this.x(tick);
      panel.line(at, bottom, at, bottom + 4);
      panel.text(at, bottom + 17, short(tick), "middle", "tick");
    }
    for (const tick of yTicks) {
      const at = this.y(tick);
      panel.line(left - 4, at, left, at);
      panel.text(left - 7, at + 4, short(tick), "end", "tick");
    }
    panel.text(right, bottom + 33, xTitle, "end", "title");
    panel.text(left - 28, top - 12, yTitle, "start", "title");
  }

  // Divide the axis into `count` places; `at(i)` is the middle of one, `wide` its width. Taps have names.
  slots(count, named = true) {
    this.wide = (this.right - this.left) / count;
    this.at = (i) => this.left + this.wide * (i + 0.5);
    if (named) range(count, (i) => this.panel.text(this.at(i), this.bottom + 18, `x${SUBSCRIPTS[i + 1]}`, "middle"));
    return this;
  }

  // The bar of a slot, from 0 to a value. `share` of the slot is its width, `shift` of it how far it stands aside.
  bar(i, value, look, style, share = 0.6, shift = 0) {
    const [base, end, width] = [this.y(0), this.y(value), Math.min(44, share * this.wide)];
    const x = this.at(i) + shift * this.wide - width / 2;
    this.panel.rect(x, Math.min(base, end), width, Math.abs(base - end), look, style);
  }

  // A function, or pairs of values.
  curve(drawn, look = "curve own", style) {
    const [low, high] = this.domain;
    const points = Array.isArray(drawn) ? drawn : range(161, (i) => low + ((high - low) * i) / 160).map((x) => [x, drawn(x)]);
    const path = points.map(([x, y]) => `${this.x(x).toFixed(1)},${this.y(y).toFixed(1)}`).join(" ");
    this.panel.add("polyline", { points: path }, look, style);
  }

  // A line across, at a value, and words behind it.
  level(value, look = "guide", words = "") {
    this.panel.line(this.left, this.y(value), this.right, this.y(value), look);
    this.panel.text(this.right + 6, this.y(value) + 4, words, "start", "strong");
  }

  // A dot, with the tangent there.
  dot(x, y, slope) {
    const [cx, cy] = [this.x(x), this.y(y)];
    if (slope !== undefined) {
      const [dx, dy] = [this.x(1) - this.x(0), (this.y(1) - this.y(0)) * slope];
      const long = 38 / Math.hypot(dx, dy);
      this.panel.line(cx - long * dx, cy - long * dy, cx + long * dx, cy + long * dy, "arrow");
    }
    this.panel.dot(cx, cy);
  }
}

// What a key does to a tap, in steps.
const MOVES = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5, Home: -1e9, End: 1e9 };

// A window: one bar per tap, dragged at its end. `values` is what the figure reads.
class Taps {
  constructor(panel, values, { low = 0, step = 0.05, yTitle = "value of the tap" } = {}) {
    Object.assign(this, { panel, low, step, yTitle, values: [...values] });
    panel.root.setAttribute("role", "group"); // the children of an img are not seen by screen readers
    this.knobs = values.map((value, i) => {
      panel.stage.starts.push([(v) => (this.values[i] = v), value]);
      return this.knob(i);
    });
  }

  knob(i) {
    const knob = svg("g", {
      class: "handle", role: "slider", tabindex: 0, "aria-label": `Tap ${i + 1}`, "aria-valuemin": this.low,
      "aria-valuemax": 1, "aria-orientation": "vertical",
    }, svg("circle", { r: 16, class: "reach" }), svg("circle", { r: 7.5, class: "knob" }));
    this.panel.knobs.append(knob);
    const give = (value) => {
      const steps = Math.round((clamp(value, this.low, 1) - this.low) / this.step);
      this.values[i] = Number((this.low + steps * this.step).toFixed(6));
      this.panel.stage.redraw();
    };
    knob.addEventListener("pointerdown", (event) => {
      knob.setPointerCapture(event.pointerId);
      knob.focus();
      event.preventDefault();
    });
    // A finger on the knob drags it and does not scroll the page; touch-action alone does not hold inside an SVG.
    knob.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    knob.addEventListener("pointermove", (event) => {
      const place = event.clientY - this.panel.root.getBoundingClientRect().top;
      if (knob.hasPointerCapture(event.pointerId)) give(this.plot.y.back(place));
    });
    knob.addEventListener("keydown", (event) => {
      if (!(event.key in MOVES)) return;
      give(this.values[i] + MOVES[event.key] * this.step);
      event.preventDefault();
    });
    return knob;
  }

  // Draw `count` bars; `look(i)` is a bar's [class, CSS]. Returns the plot, with the place of each bar, `at(i)`.
  draw({ count = this.values.length, look = () => ["bar"], ...options } = {}) {
    const { panel, yTitle } = this;
    const plot = (this.plot = panel.plot({ yTicks: [0, 0.5, 1], yTitle, ...options }).slots(count));
    this.knobs.forEach((knob, i) => {
      const value = this.values[i];
      knob.style.display = i < count ? "" : "none";
      knob.setAttribute("transform", `translate(${plot.at(i).toFixed(1)} ${plot.y(value).toFixed(1)})`);
      knob.setAttribute("aria-valuenow", value);
      knob.setAttribute("aria-valuetext", num(value));
      if (i < count) plot.bar(i, value, ...look(i));
    });
    return plot;
  }
}

// ---- a figure ----

let count = 0;

class Stage {
  constructor(home, operator) {
    this.id = `play-${(count += 1)}`;
    this.drawings = []; // the panels
    this.starts = []; // what the button "Start again" sets back: [set, value]
    this.panels = element("div", { class: "play-panels" });
    this.controls = element("div", { class: "play-controls" });
    this.numbers = element("div", { class: "play-numbers", "aria-live": "polite" });
    home.prepend(this.panels, this.controls, this.numbers);
    home.style.setProperty("--own", `var(--op-${operator})`);
  }

  panel(label, width, height) {
    return new Panel(this, label, width, height);
  }

  taps(panel, values, options) {
    return new Taps(panel, values, options);
  }

  // Place a native control and its label. `read()` is what the figure sees as `value`; `set` sets the control itself.
  control(label, input, start, set, read, after = []) {
    input.id = `${this.id}-${this.starts.length}`;
    const words = element("label", { for: input.id }, label);
    const parts = input.type === "checkbox" ? [input, words] : [words, input, ...after];
    this.controls.append(element("div", { class: "play-control" }, ...parts));
    const control = { set: (value) => { set(value); control.value = read(); } };
    input.addEventListener("input", () => { control.value = read(); this.redraw(); });
    this.starts.push([control.set, start]);
    control.set(start);
    return control;
  }

  // A native slider with its value beside it; `from` turns the slider's position into the value (for a logarithmic
  // one), and `says` the value into words: by default with as many digits as the step has.
  slider(label, min, max, start, { step = 1, from = (v) => v, says } = {}) {
    says ??= (value) => num(value, (String(step).split(".")[1] ?? "").length);
    const input = element("input", { type: "range", min, max, step });
    const output = element("output", { "aria-live": "off" });
    const read = () => {
      const value = from(Number(input.value));
      output.textContent = says(value);
      input.setAttribute("aria-valuetext", says(value));
      return value;
    };
    return this.control(label, input, start, (value) => (input.value = value), read, [output]);
  }

  choice(label, options, start) {
    const select = element("select", {}, ...options.map((words, value) => element("option", { value }, words)));
    return this.control(label, select, start, (value) => (select.value = value), () => Number(select.value));
  }

  toggle(label, start = false) {
    const input = element("input", { type: "checkbox" });
    return this.control(label, input, start, (value) => (input.checked = value), () => input.checked);
  }

  button(words, act) {
    const button = element("button", { type: "button", class: "play-button" }, words);
    button.addEventListener("click", () => { act(); this.redraw(); });
    this.controls.append(button);
  }

  // Do `act` `times` times: over half a second, or at once for readers who want no motion.
  repeat(times, act) {
    clearInterval(this.running);
    const portion = still.matches ? times : Math.ceil(times / 25);
    const some = () => {
      range(Math.min(portion, times), act);
      times -= portion;
      if (times <= 0) clearInterval(this.running);
      this.redraw();
    };
    this.running = setInterval(some, 20);
    some();
  }

  // Lines of numbers below the drawing, as HTML.
  say(...lines) {
    this.numbers.innerHTML = lines.map((line) => `<p>${line}</p>`).join("");
  }

  draw(paint) {
    this.redraw = () => {
      for (const panel of this.drawings) panel.clear();
      paint();
    };
    this.button("Start again", () => {
      clearInterval(this.running);
      for (const [set, value] of this.starts) set(value);
      this.restart?.();
    });
    let drawn;
    const fit = () => {
      if (drawn !== this.panels.clientWidth) this.redraw();
      drawn = this.panels.clientWidth;
    };
    fit();
    new ResizeObserver(fit).observe(this.panels);
  }
}

const figures = {};

async function open(home) {
  const { operator, make } = figures[home.dataset.figure];
  await make(new Stage(home, operator));
  home.dataset.ready = "yes";
}

document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".interactive").forEach(open));

const figure = (name, operator, make) => (figures[name] = { operator, make });
window.poolnb = { ...window.poolnb, figure, num, element, clamp, SUBSCRIPTS };

})();
