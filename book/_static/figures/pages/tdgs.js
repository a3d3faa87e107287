// TDGS: temperature, draws under the cap of a normalised window, and a temperature that is caught below 0.
"use strict";

poolnb.figure("tdgs", "tdgs", (stage) => {
  const { num } = poolnb;
  const { gumbel, mean, tdgs, uniforms } = poolnb.formulas;
  const [LOW, HIGH, EPS] = [-1, 3, 0.01];
  const bars = stage.panel("The taps of a window as bars", 190, 240);
  const taps = stage.taps(bars, [0.5, 0.75, 1, 0.25, 0.1, 0.6]);
  const histogram = stage.panel("How often each tap is drawn, and its probability", 190, 240);
  const curve = stage.panel("The output in evaluation against the temperature", 200, 240);
  const T = stage.slider("temperature T", LOW, HIGH, 1, { step: 0.02 });
  const tau = stage.slider("τ of a soft draw", 0.1, 3, 1, { step: 0.1 });
  const count = stage.slider("taps n", 2, 6, 4);
  const normalize = stage.toggle("normalise", true);

  // A draw is its noise: so the histogram moves when T does.
  let uniform, draws;
  stage.restart = () => {
    uniform = uniforms(1);
    draws = [];
  };
  stage.restart();
  stage.button("Draw 100", () => stage.repeat(100, () => draws.push(taps.values.map(() => gumbel(uniform)))));
  stage.button("Step that raises y", () => T.set(T.value + 2 * evaluate(T.value).pull));

  const valid = () => taps.values.slice(0, count.value);
  const evaluate = (temperature, training) =>
    tdgs(valid(), { temperature, tau: tau.value, normalize: normalize.value, eps: EPS, ...training });

  function drawHistogram(weights, cap) {
    const words = { yTicks: [0, 0.5, 1], yTitle: "share of the draws" };
    const plot = histogram.plot({ left: 32, right: 8, ...words }).slots(weights.length);
    const drawn = draws.map((noise) => evaluate(T.value, { noise }).weights.indexOf(1));
    const soft = draws.length ? evaluate(T.value, { noise: draws.at(-1), hard: false }).weights : [];
    weights.forEach((w, i) => {
      const [at, half] = [plot.at(i), 0.4 * plot.wide];
      const share = drawn.filter((tap) => tap === i).length / Math.max(1, drawn.length);
      plot.bar(i, share, "own", "opacity: 0.6");
      histogram.line(at - half, plot.y(w), at + half, plot.y(w), "curve");
      if (soft.length) histogram.dot(at, plot.y(soft[i]), 3.5, "ink halo");
    });
    if (cap > 0.995) return;
    plot.level(cap, "guide low");
    histogram.text(plot.right, plot.y(cap) - 6, `cap ${num(cap)}`, "end", "halo");
  }

  function drawCurve(x, { value, pull }) {
    const [low, high] = [mean(x), Math.max(...x)];
    const y = [low - 0.1, high + 0.05];
    const plot = curve.plot({ x: [LOW, HIGH], y, left: 34, right: 8, xTicks: [-1, 0, 1, 2, 3], xTitle: "T", yTitle: "y in evaluation" });
    curve.rect(plot.left, plot.top, plot.x(0) - plot.left, plot.bottom - plot.top, "zone");
    curve.text(plot.x(-0.5), plot.bottom - 10, "caught", "middle", "tick");
    for (const [level, words] of [[high, "max"], [low, "mean"]]) {
      plot.level(level);
      curve.text(plot.right, plot.y(level) + 15, words, "end", "faint");
    }
    plot.curve((t) => evaluate(t).value);
    plot.dot(T.value, value, pull);
  }

  stage.draw(() => {
    const result = evaluate(T.value);
    const [x, n] = [valid(), count.value];
    const t = Math.max(T.value, 0) + EPS;
    const cap = normalize.value ? 1 / (1 + (n - 1) * Math.exp(-1 / t)) : 1;
    taps.draw({ count: n, look: (i) => ["own", `opacity: ${0.4 + 0.6 * result.weights[i]}`] });
    drawHistogram(result.weights, cap);
    drawCurve(x, result);
    stage.say(
      `t = max(T, 0) + ε = ${num(t - EPS)} + ${EPS} = <b>${num(t)}</b>; the largest probability is <b>${num(Math.max(...result.weights), 3)}</b>`
        + (normalize.value ? `; with n = ${n} none exceeds e<sup>1/t</sup> / (e<sup>1/t</sup> + n − 1) = <b>${num(cap, 3)}</b>` : ""),
      `y = <b>${num(result.value)}</b> in evaluation; ∂y/∂T = <b>${num(result.pull, 3)}</b>`
        + (T.value <= 0 ? ": T is caught. Whatever the loss, no gradient moves it again" : ""),
      draws.length ? `${draws.length} draws. The dots are the last one, softened by τ = ${num(tau.value, 1)}` : "No draws yet",
    );
  });
});
