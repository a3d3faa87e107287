// TDGS: temperature, draws under the cap of a normalised window, and a temperature that is caught below 0.
"use strict";

poolnb.figure("tdgs", (stage) => {
  const { num, scale, formulas, SUBSCRIPTS } = poolnb;
  const [LOW, HIGH, EPS] = [-1, 3, 0.01];
  const bars = stage.panel({ label: "The taps of a window as bars", height: 240, width: 190 });
  const taps = stage.taps(bars, { values: [0.5, 0.75, 1, 0.25, 0.1, 0.6] });
  const histogram = stage.panel({ label: "How often each tap is drawn, and its probability", height: 240, width: 190 });
  const curve = stage.panel({ label: "The output in evaluation against the temperature", height: 240, width: 200 });
  const T = stage.slider({ label: "temperature T", min: LOW, max: HIGH, step: 0.02, value: 1 });
  const tau = stage.slider({ label: "τ of a soft draw", min: 0.1, max: 3, step: 0.1, value: 1, says: (v) => num(v, 1) });
  const count = stage.slider({ label: "taps n", min: 2, max: 6, step: 1, value: 4, says: (v) => num(v, 0) });
  const normalize = stage.toggle({ label: "normalise", value: true });

  // A draw is its noise, and the tap follows from noise, taps and T: so the histogram moves when T does.
  let uniform = formulas.uniforms(1);
  let draws = [];
  const draw = () => draws.push(taps.values.map(() => formulas.gumbel(uniform)));
  const settings = (temperature) => ({ temperature, tau: tau.value, normalize: normalize.value, eps: EPS });
  stage.button("Draw 100", () => stage.repeat(100, draw));
  stage.button("Step that raises y", () => {
    const { pull } = formulas.tdgs(taps.values.slice(0, count.value), settings(T.value));
    T.set(poolnb.clamp(T.value + 2 * pull, LOW, HIGH));
  });
  stage.restart = () => {
    uniform = formulas.uniforms(1);
    draws = [];
  };

  function drawHistogram(x, weights, cap) {
    histogram.clear();
    const y = scale(0, 1, 200, 26);
    const wide = (histogram.width - 40) / x.length;
    histogram.axes(scale(0, 1, 32, histogram.width - 8), y, { yTicks: [0, 0.5, 1], yTitle: "share of the draws" });
    const kept = draws.map((noise) => formulas.tdgs(x, { ...settings(T.value), noise: noise.slice(0, x.length) }).weights.indexOf(1));
    const soft = draws.length ? formulas.tdgs(x, { ...settings(T.value), noise: draws.at(-1).slice(0, x.length), hard: false }).weights : [];
    weights.forEach((w, i) => {
      const at = 32 + wide * (i + 0.5);
      const share = draws.length ? kept.filter((tap) => tap === i).length / draws.length : 0;
      histogram.bar(at, y(0), y(share), 0.6 * wide, "", "fill: var(--op-tdgs); opacity: 0.6");
      histogram.line(at - 0.4 * wide, y(w), at + 0.4 * wide, y(w), "curve");
      if (soft.length) histogram.dot(at, y(soft[i]), 3.5, "ink halo");
      histogram.text(at, 218, `x${SUBSCRIPTS[i + 1]}`, "middle");
    });
    if (cap < 0.995) {
      histogram.line(32, y(cap), histogram.width - 8, y(cap), "guide", "stroke: var(--op-max)");
      histogram.text(histogram.width - 8, y(cap) - 6, `cap ${num(cap)}`, "end", "halo");
    }
  }

  function drawCurve(x, result) {
    curve.clear();
    const top = Math.max(...x);
    const y = scale(formulas.mean(x) - 0.1, top + 0.05, 200, 26);
    const at = scale(LOW, HIGH, 34, curve.width - 8);
    curve.rect(at(LOW), 26, at(0) - at(LOW), 174, "zone");
    curve.text(at(-0.5), 190, "caught", "middle", "tick");
    curve.axes(at, y, { xTicks: [-1, 0, 1, 2, 3], xTitle: "T", yTitle: "y in evaluation" });
    for (const [value, words] of [[top, "max"], [formulas.mean(x), "mean"]]) {
      curve.line(34, y(value), curve.width - 8, y(value), "guide");
      curve.text(curve.width - 8, y(value) + 15, words, "end", "faint");
    }
    const points = Array.from({ length: 161 }, (_, k) => LOW + ((HIGH - LOW) * k) / 160);
    curve.curve(points.map((t) => [at(t), y(formulas.tdgs(x, settings(t)).value)]), "curve", "stroke: var(--op-tdgs)");
    const [dx, dy] = [at(1) - at(0), (y(1) - y(0)) * result.pull];
    const reach = 34 / Math.hypot(dx, dy);
    const [cx, cy] = [at(T.value), y(result.value)];
    curve.line(cx - reach * dx, cy - reach * dy, cx + reach * dx, cy + reach * dy, "arrow");
    curve.dot(cx, cy, 4.5, "ink");
  }

  stage.draw(() => {
    const x = taps.values.slice(0, count.value);
    const result = formulas.tdgs(x, settings(T.value));
    const t = Math.max(T.value, 0) + EPS;
    const cap = normalize.value ? 1 / (1 + (x.length - 1) * Math.exp(-1 / t)) : 1;
    bars.clear();
    taps.draw({ count: count.value, look: (i) => `fill: var(--op-tdgs); opacity: ${0.2 + 0.8 * result.weights[i]}` });
    drawHistogram(x, result.weights, cap);
    drawCurve(x, result);
    const largest = Math.max(...result.weights);
    stage.say(
      `t = max(T, 0) + ε = ${num(Math.max(T.value, 0))} + ${num(EPS)} = <b>${num(t)}</b>; the largest probability is <b>${num(largest, 3)}</b>`
        + (normalize.value ? `; with n = ${x.length} none exceeds e<sup>1/t</sup> / (e<sup>1/t</sup> + n − 1) = <b>${num(cap, 3)}</b>` : ""),
      `y = <b>${num(result.value)}</b> in evaluation; ∂y/∂T = <b>${num(result.pull, 3)}</b>`
        + (T.value <= 0 ? ": T is caught. Whatever the loss, no gradient moves it again" : ""),
      draws.length ? `${draws.length} draws. The dots are the last one, softened by τ = ${num(tau.value, 1)}` : "No draws yet",
    );
  });
});
