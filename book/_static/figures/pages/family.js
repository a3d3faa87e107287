// The family: every operator brought to the same output, its weights, its derivatives, and a photograph pooled by it.
"use strict";

poolnb.figure("family", (stage) => {
  const { num, scale, element, formulas } = poolnb;
  const KERNEL = 3;
  const top = stage.panel({ label: "Four taps as bars, and the common output", height: 220, width: 300 });
  const taps = stage.taps(top, { values: [0.2, 0.45, 0.6, 0.9], low: 0.05, yTicks: [0.5, 1], yTitle: "four taps" });
  const share = stage.slider({ label: "from mean to maximum", min: 0.02, max: 0.98, step: 0.01, value: 0.5, says: (v) => `${num(100 * v, 0)} %` });
  const original = canvas("The photograph, before pooling");
  stage.panels.append(element("div", { class: "play-photo" }, original, element("p", {}, "photograph, before")));

  // name, symbol of the parameter, and where it is looked for. The mean and the maximum are the two ends.
  const OPERATORS = [
    { name: "avg", title: "mean", run: formulas.avg },
    { name: "mixed", title: "mixed", symbol: "α", run: formulas.mixed, range: [0, 1] },
    { name: "soft", title: "soft", symbol: "β", run: formulas.soft, range: [0, 2000] },
    { name: "lse", title: "LSE", symbol: "r", run: formulas.lse, range: [0.001, 5000] },
    { name: "gem", title: "GeM", symbol: "p", run: formulas.gem, range: [1, 5000] },
    { name: "lp", title: "Lp", symbol: "p", run: formulas.lp },
    { name: "max", title: "max", run: formulas.max },
  ];
  const rows = element("div", { class: "play-rows" });
  for (const one of OPERATORS) {
    one.words = element("p");
    one.panel = stage.panel({ label: `${one.title}: weights and derivatives of the four taps`, height: 74, width: 250 });
    one.picture = canvas(`The photograph, pooled by ${one.title}`);
    rows.append(element("div", { class: "play-row" }, one.words, one.panel.root, one.picture));
  }
  stage.controls.after(rows);

  // ---- the photograph -----------------------------------------------------------------------------------------------

  const { size, levels, pixels } = poolnb.photograph;
  const grey = Array.from(pixels, (letter) => levels.indexOf(letter) / 63);

  function canvas(label) {
    return element("canvas", { class: "play-picture", role: "img", "aria-label": label });
  }

  function paint(target, side, values) {
    target.width = target.height = side;
    const image = new ImageData(side, side);
    values.forEach((v, i) => image.data.set([255 * v, 255 * v, 255 * v, 255], 4 * i));
    target.getContext("2d").putImageData(image, 0, 0);
  }

  function pooled(run, parameter) {
    const side = size / KERNEL;
    return Array.from({ length: side * side }, (_, place) => {
      const [row, column] = [Math.floor(place / side) * KERNEL, (place % side) * KERNEL];
      const window = Array.from({ length: KERNEL * KERNEL }, (_, t) => grey[(row + Math.floor(t / KERNEL)) * size + column + (t % KERNEL)]);
      return Math.min(1, run(window, parameter).value);
    });
  }

  // ---- one row per operator -----------------------------------------------------------------------------------------

  function drawRow({ name, panel, result }) {
    panel.clear();
    const half = panel.width / 2;
    for (const [values, left, title] of [[result.weights, 4, "weights"], [result.derivatives, half + 4, "derivatives"]]) {
      const y = scale(-0.25, 1.25, 72, 14);
      const wide = (half - 16) / values.length;
      panel.line(left, y(0), left + half - 12, y(0));
      panel.line(left, y(1), left + half - 12, y(1), "guide", "opacity: 0.5");
      values.forEach((v, i) => {
        const cut = poolnb.clamp(v, -0.25, 1.25);
        panel.bar(left + wide * (i + 0.5), y(0), y(cut), 0.6 * wide, "", `fill: var(--op-${name})`);
      });
      if (name === "avg") panel.text(left + half - 12, 10, title, "end", "tick");
      if (name === "avg") panel.text(left, 22, "1", "start", "tick");
    }
  }

  stage.draw(() => {
    top.clear();
    const x = taps.values;
    const [low, high] = [formulas.mean(x), Math.max(...x)];
    const target = low + share.value * (high - low);
    const at = taps.draw({ right: 70 });
    for (const [value, words, look] of [[low, "mean", "guide"], [high, "max", "guide"], [target, `y = ${num(target)}`, "curve"]]) {
      top.line(38, at.y(value), top.width - 70, at.y(value), look, "pointer-events: none");
    }
    top.text(top.width - 64, at.y(target) + 4, `y = ${num(target)}`, "start", "strong");
    if (at.y(low) - at.y(target) > 14) top.text(top.width - 64, at.y(low) + 4, "mean", "start", "faint");
    if (at.y(target) - at.y(high) > 14) top.text(top.width - 64, at.y(high) + 4, "max", "start", "faint");
    let p = 1;
    for (const one of OPERATORS) {
      one.parameter = one.range ? formulas.solve(one.run, x, target, ...one.range) : p;
      if (one.name === "gem") p = one.parameter;
      one.result = one.run(x, one.parameter);
      const free = high - low < 1e-9; // all taps equal: any parameter gives this output
      const setting = one.symbol ? `${one.symbol}\u00a0=\u00a0${free ? "any" : num(one.parameter, one.parameter < 100 ? 2 : 0)}` : "";
      one.words.innerHTML = `<b>${one.title}</b> ${setting}${setting && ","} y\u00a0=\u00a0${num(one.result.value)}`;
      drawRow(one);
      paint(one.picture, size / KERNEL, pooled(one.run, one.parameter));
    }
    paint(original, size, grey);
    stage.say(
      `mean + ${num(100 * share.value, 0)} % of the way = ${num(low)} + ${num(share.value)} · (${num(high)} − ${num(low)}) = <b>${num(target)}</b>`,
      `Lp has GeM's exponent. It is a sum and no mean, so it lies above the maximum: 4<sup>1/p</sup> · ${num(target)} = <b>${num(4 ** (1 / p) * target)}</b>`,
    );
  });
});
