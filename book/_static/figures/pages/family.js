// The family: every operator brought to the same output, its weights, its derivatives, and a photograph pooled by it.
"use strict";

poolnb.figure("family", "avg", async (stage) => {
  const { num, range, clamp, element } = poolnb;
  const { avg, mixed, soft, lse, gem, lp, max, mean, solve } = poolnb.formulas;
  const [KERNEL, PIXELS] = [3, 96];
  const top = stage.panel("Four taps as bars, and the common output", 300, 220);
  const taps = stage.taps(top, [0.2, 0.45, 0.6, 0.9], { low: 0.05, yTitle: "four taps" });
  const share = stage.slider("from mean to maximum", 2, 98, 50, { says: (v) => `${v} %` });
  let p = 3; // GeM's exponent, and Lp's

  // With the symbol and the range of the parameter.
  const OPERATORS = [
    { name: "avg", title: "mean", run: avg },
    { name: "mixed", title: "mixed", symbol: "α", run: mixed, between: [0, 1] },
    { name: "soft", title: "soft", symbol: "β", run: soft, between: [0, 2000] },
    { name: "lse", title: "LSE", symbol: "r", run: lse, between: [0.001, 5000] },
    { name: "gem", title: "GeM", symbol: "p", run: gem, between: [1, 5000] },
    { name: "lp", title: "Lp", symbol: "p", run: lp },
    { name: "max", title: "max", run: max },
  ];
  const rows = element("div", { class: "play-rows" });
  for (const one of OPERATORS) {
    one.words = element("p");
    one.panel = stage.panel(`${one.title}: weights and derivatives of the four taps`, 250, 74);
    one.picture = canvas(`The photograph, pooled by ${one.title}`);
    rows.append(element("div", { class: "play-row" }, one.words, one.panel.root, one.picture));
  }
  stage.controls.after(rows);

  const original = canvas("The photograph, before pooling");
  stage.panels.append(element("div", { class: "play-photo" }, original, element("p", {}, "photograph, before")));
  original.width = original.height = PIXELS;
  let grey = range(PIXELS * PIXELS, () => 0);

  async function develop() {
    const photograph = new Image();
    photograph.src = poolnb.photograph;
    await photograph.decode();
    const context = original.getContext("2d");
    context.drawImage(photograph, 0, 0);
    const { data } = context.getImageData(0, 0, PIXELS, PIXELS);
    grey = grey.map((_, i) => data[4 * i] / 255);
    stage.redraw();
  }

  function canvas(label) {
    return element("canvas", { class: "play-picture", role: "img", "aria-label": label });
  }

  function paintPooled({ picture, run, parameter }) {
    const side = PIXELS / KERNEL;
    picture.width = picture.height = side;
    const image = new ImageData(side, side);
    range(side * side, (place) => {
      const corner = KERNEL * (Math.floor(place / side) * PIXELS + (place % side));
      const window = range(KERNEL * KERNEL, (t) => grey[corner + Math.floor(t / KERNEL) * PIXELS + (t % KERNEL)]);
      const v = 255 * run(window, parameter).value;
      image.data.set([v, v, v, 255], 4 * place);
    });
    picture.getContext("2d").putImageData(image, 0, 0);
  }

  function drawRow({ name, panel, result }) {
    const half = panel.width / 2;
    for (const [values, left, title] of [[result.weights, 4, "weights"], [result.derivatives, half + 4, "derivatives"]]) {
      const plot = panel.plot({ y: [0, 1.25], left, right: half + 8 - left, top: 14, bottom: 62 }).slots(4, false);
      plot.level(1);
      values.forEach((v, i) => plot.bar(i, clamp(v, -0.25, 1.25), "low", v < 0 ? "" : `fill: var(--op-${name})`));
      panel.text(left, 22, "1", "start", "tick");
      if (name === "avg") panel.text(plot.right, 10, title, "end", "tick");
    }
  }

  function drawTaps(low, target, high) {
    const plot = taps.draw({ right: 70 });
    plot.level(target, "curve", `y = ${num(target)}`);
    for (const [value, words] of [[low, "mean"], [high, "max"]]) {
      plot.level(value);
      if (Math.abs(plot.y(value) - plot.y(target)) > 14) top.text(plot.right + 6, plot.y(value) + 4, words, "start", "faint");
    }
  }

  stage.draw(() => {
    const x = taps.values;
    const [low, high] = [mean(x), Math.max(...x)];
    const target = low + (share.value / 100) * (high - low);
    drawTaps(low, target, high);
    const any = high - low < 1e-9; // any parameter does
    for (const one of OPERATORS) {
      one.parameter = one.between ? solve(one.run, x, target, ...one.between) : p;
      if (one.run === gem && !any) p = one.parameter;
      one.result = one.run(x, one.parameter);
      const setting = one.symbol ? `${one.symbol}&nbsp;=&nbsp;${any && one.between ? "any" : num(one.parameter, one.parameter < 100 ? 2 : 0)}, ` : "";
      one.words.innerHTML = `<b>${one.title}</b> ${setting}y&nbsp;=&nbsp;${num(one.result.value)}`;
      drawRow(one);
      paintPooled(one);
    }
    stage.say(
      `mean + ${share.value} % of the way = ${num(low)} + ${num(share.value / 100)} · (${num(high)} − ${num(low)}) = <b>${num(target)}</b>`,
      `Lp has GeM’s exponent. It is a sum and no mean, so it lies above the maximum: 4<sup>1/p</sup> · ${num(target)} = <b>${num(4 ** (1 / p) * target)}</b>`,
    );
  });
  await develop();
});
