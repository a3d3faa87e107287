// The engine of the book's figures: controls, drawing and dragging. A figure is a function of a stage:
//
//     poolnb.figure("softmax", (stage) => { ...; stage.draw(() => { ... }); });
//
// It runs for every <div class="interactive" data-figure="softmax">. Controls are native; what is dragged in a drawing is
// a slider for the keyboard and for screen readers too. Colours are the theme's, through CSS.
"use strict";

(() => {
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
  function scale(a, b, c, d) {
    const map = (value) => c + ((value - a) / (b - a)) * (d - c);
    map.back = (place) => a + ((place - c) / (d - c)) * (b - a);
    map.domain = [a, b];
    map.range = [c, d];
    return map;
  }

  // ---- a drawing ----------------------------------------------------------------------------------------------------

  class Panel {
    constructor(stage, { label, height, width = 300 }) {
      this.height = height;
      this.label = label;
      this.stage = stage;
      this.drawing = svg("g", { "aria-hidden": "true" });
      this.handles = svg("g");
      this.root = svg("svg", { class: "play-panel", role: "img", "aria-label": label }, this.drawing, this.handles);
      this.root.style.flexBasis = `${width}px`;
      stage.panels.append(this.root);
    }

    // Empty the drawing. Its unit is one pixel of the page at any width, so that labels stay legible on a phone.
    clear(height = this.height) {
      this.width = Math.max(120, this.root.clientWidth || 300);
      this.root.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
      this.root.style.height = `${height}px`;
      this.drawing.replaceChildren();
    }

    add(name, attributes, ...children) {
      const made = svg(name, attributes, ...children);
      this.drawing.append(made);
      return made;
    }

    line(x1, y1, x2, y2, look = "axis", style = "") {
      return this.add("line", { x1, y1, x2, y2, class: look, style });
    }

    rect(x, y, width, height, look = "", style = "") {
      return this.add("rect", { x, y, width: Math.max(0, width), height: Math.max(0, height), class: look, style });
    }

    // A bar from `base` to `top`, whichever is higher.
    bar(x, base, top, width, look = "", style = "") {
      return this.rect(x - width / 2, Math.min(base, top), width, Math.abs(base - top), look, style);
    }

    dot(cx, cy, r = 4, look = "", style = "") {
      return this.add("circle", { cx, cy, r, class: look, style });
    }

    text(x, y, words, anchor = "start", look = "", style = "") {
      return this.add("text", { x, y, "text-anchor": anchor, class: look, style }, String(words));
    }

    curve(points, look = "curve", style = "") {
      const inside = points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
      const path = inside.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
      return this.add("path", { d: path ? `M${path}` : "", class: look, style });
    }

    arrow(x1, y1, x2, y2, look = "arrow", style = "") {
      const [dx, dy] = [x2 - x1, y2 - y1];
      const long = Math.hypot(dx, dy) || 1;
      const [ux, uy] = [dx / long, dy / long];
      const head = Math.min(8, long);
      const back = [x2 - ux * head, y2 - uy * head];
      this.line(x1, y1, back[0], back[1], look, style);
      const corners = [[x2, y2], [back[0] - uy * 4.5, back[1] + ux * 4.5], [back[0] + uy * 4.5, back[1] - ux * 4.5]];
      this.add("polygon", { points: corners.map((c) => c.join(" ")).join(" "), class: `${look} head`, style });
    }

    // Axes with ticks at the given values, and a title for each.
    axes(x, y, { xTicks = [], yTicks = [], xTitle = "", yTitle = "", digits = 1 } = {}) {
      const [left, right] = x.range;
      const [bottom, top] = y.range;
      this.line(left, bottom, right, bottom);
      this.line(left, bottom, left, top);
      for (const tick of xTicks) {
        this.line(x(tick), bottom, x(tick), bottom + 4);
        this.text(x(tick), bottom + 17, num(tick, Number.isInteger(tick) ? 0 : digits), "middle", "tick");
      }
      for (const tick of yTicks) {
        this.line(left - 4, y(tick), left, y(tick));
        this.text(left - 7, y(tick) + 4, num(tick, Number.isInteger(tick) ? 0 : digits), "end", "tick");
      }
      if (xTitle) this.text(right, bottom + 33, xTitle, "end", "title");
      if (yTitle) this.text(left - 22, top - 9, yTitle, "start", "title");
    }

    // Something to drag, up and down or sideways. `place(handle)` is called when the figure is drawn and says where it
    // stands: handle.at(x, y, valueOfPoint).
    handle({ label, min, max, step, get, set, says = (v) => num(v), sideways = false }) {
      const knob = svg("g", {
        class: "handle", role: "slider", tabindex: 0, "aria-label": label, "aria-valuemin": min, "aria-valuemax": max,
        "aria-orientation": sideways ? "horizontal" : "vertical",
      }, svg("circle", { r: 16, class: "reach" }), svg("circle", { r: 7.5, class: "knob" }));
      this.root.setAttribute("role", "group"); // the children of an img are not seen by screen readers
      this.handles.append(knob);
      const steps = (value) => Number((Math.round((value - min) / step) * step + min).toFixed(6));
      const give = (value) => {
        set(steps(clamp(value, min, max)));
        this.stage.redraw();
      };
      let valueAt = () => get();
      const follow = (event) => {
        const box = this.root.getBoundingClientRect();
        const ratio = this.width / box.width;
        give(valueAt((event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio));
      };
      knob.addEventListener("pointerdown", (event) => {
        knob.setPointerCapture(event.pointerId);
        knob.focus();
        event.preventDefault();
      });
      // A finger on the knob drags it and does not scroll the page; touch-action alone does not hold inside an SVG.
      knob.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
      knob.addEventListener("pointermove", (event) => knob.hasPointerCapture(event.pointerId) && follow(event));
      const moves = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5 };
      knob.addEventListener("keydown", (event) => {
        if (event.key === "Home") give(min);
        else if (event.key === "End") give(max);
        else if (event.key in moves) give(get() + moves[event.key] * step);
        else return;
        event.preventDefault();
      });
      this.stage.starts.push([set, get()]);
      return {
        at: (x, y, value) => {
          valueAt = value;
          knob.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
          knob.setAttribute("aria-valuenow", get());
          knob.setAttribute("aria-valuetext", says(get()));
        },
        show: (visible) => (knob.style.display = visible ? "" : "none"),
      };
    }
  }

  // A window: one bar per tap, dragged at its end. `values` is what the figure reads.
  class Taps {
    constructor(panel, { values, low = 0, high = 1, step = 0.05, yTicks = [0, 0.5, 1], yTitle = "value of the tap" }) {
      Object.assign(this, { panel, values: [...values], low, high, yTicks, yTitle });
      this.handles = values.map((_, i) => panel.handle({
        label: `Tap ${i + 1}`, min: low, max: high, step, get: () => this.values[i], set: (v) => (this.values[i] = v),
      }));
    }

    // Draw `count` bars; `look(i)` gives a bar's CSS. Returns where things are.
    draw({ count = this.values.length, height = this.panel.height, look = () => "", right = 8 } = {}) {
      const { panel, low, high } = this;
      const y = scale(low, high, height - 40, 26);
      const wide = (panel.width - 38 - right) / count;
      const x = (i) => 38 + wide * (i + 0.5);
      panel.axes(scale(0, 1, 38, panel.width - right), y, { yTicks: this.yTicks, yTitle: this.yTitle });
      if (low < 0) panel.line(38, y(0), panel.width - right, y(0));
      this.handles.forEach((handle, i) => {
        const value = this.values[i];
        handle.show(i < count);
        handle.at(x(i), y(value), (px, py) => y.back(py));
        if (i >= count) return;
        panel.bar(x(i), y(Math.max(low, 0)), y(value), Math.min(44, 0.62 * wide), "bar", look(i));
        panel.text(x(i), height - 22, `x${SUBSCRIPTS[i + 1]}`, "middle");
      });
      return { x, y, wide };
    }
  }

  const SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉";

  // ---- a figure -----------------------------------------------------------------------------------------------------

  let count = 0;

  class Stage {
    constructor(home) {
      this.home = home;
      this.id = `play-${(count += 1)}`;
      this.starts = []; // what the button "start again" sets back: [set, value]
      this.panels = element("div", { class: "play-panels" });
      this.controls = element("div", { class: "play-controls" });
      this.numbers = element("div", { class: "play-numbers", "aria-live": "polite" });
      home.prepend(this.panels, this.controls, this.numbers);
      this.paint = () => {};
    }

    panel(options) {
      return new Panel(this, options);
    }

    taps(panel, options) {
      return new Taps(panel, options);
    }

    // A native slider with its value beside it. Returns an object whose `value` is what the figure reads; `from` turns the
    // slider's position into it (for a logarithmic one), and `says` into words.
    slider({ label, min, max, step, value, from = (v) => v, says = (v) => num(v) }) {
      const input = element("input", { type: "range", min, max, step, value, id: `${this.id}-${this.starts.length}` });
      const output = element("output", { for: input.id, "aria-live": "off" });
      const control = { value: from(value), input };
      const show = () => {
        control.value = from(Number(input.value));
        output.textContent = says(control.value);
        input.setAttribute("aria-valuetext", says(control.value));
      };
      input.addEventListener("input", () => { show(); this.redraw(); });
      this.controls.append(element("div", { class: "play-control" }, element("label", { for: input.id }, label), input, output));
      control.set = (v) => { input.value = v; show(); };
      this.starts.push([control.set, value]);
      show();
      return control;
    }

    choice({ label, options, value }) {
      const id = `${this.id}-${this.starts.length}`;
      const made = Object.entries(options).map(([key, words]) => element("option", { value: key }, words));
      const select = element("select", { id }, ...made);
      const control = { value, input: select, set: (v) => (select.value = control.value = v) };
      select.addEventListener("change", () => { control.value = select.value; this.redraw(); });
      this.controls.append(element("div", { class: "play-control" }, element("label", { for: id }, label), select));
      this.starts.push([control.set, value]);
      control.set(value);
      return control;
    }

    toggle({ label, value = false }) {
      const input = element("input", { type: "checkbox", id: `${this.id}-${this.starts.length}` });
      const control = { value, input, set: (v) => (input.checked = control.value = v) };
      input.addEventListener("change", () => { control.value = input.checked; this.redraw(); });
      this.controls.append(element("div", { class: "play-control" }, input, element("label", { for: input.id }, label)));
      this.starts.push([control.set, value]);
      control.set(value);
      return control;
    }

    button(words, act) {
      const button = element("button", { type: "button", class: "play-button" }, words);
      button.addEventListener("click", () => { act(); this.redraw(); });
      this.controls.append(button);
      return button;
    }

    // Do `act` `times` times: over half a second, or at once for readers who want no motion.
    repeat(times, act) {
      clearInterval(this.running);
      if (still.matches) {
        for (let i = 0; i < times; i += 1) act();
        return;
      }
      let left = times;
      const some = Math.ceil(times / 25);
      this.running = setInterval(() => {
        for (let i = 0; i < some && left > 0; i += 1, left -= 1) act();
        if (left === 0) clearInterval(this.running);
        this.redraw();
      }, 20);
    }

    // Lines of numbers below the drawing. A line is HTML that the figure has written itself.
    say(...lines) {
      this.numbers.innerHTML = lines.map((line) => `<p>${line}</p>`).join("");
    }

    redraw() {
      this.paint();
    }

    draw(paint) {
      this.paint = paint;
      this.button("Start again", () => {
        clearInterval(this.running);
        for (const [set, value] of this.starts) set(value);
        this.restart?.();
      });
      this.redraw();
      let drawn = this.panels.clientWidth;
      new ResizeObserver(() => {
        if (drawn === this.panels.clientWidth) return;
        drawn = this.panels.clientWidth;
        this.redraw();
      }).observe(this.panels);
    }
  }

  const figures = {};

  function start() {
    for (const home of document.querySelectorAll(".interactive[data-figure]")) {
      figures[home.dataset.figure]?.(new Stage(home));
      home.dataset.ready = "yes";
    }
  }

  document.addEventListener("DOMContentLoaded", start);
  window.poolnb = { ...window.poolnb, figure: (name, make) => (figures[name] = make), num, scale, element, clamp, SUBSCRIPTS };
})();
