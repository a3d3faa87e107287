// Softmax-weighted pooling: beta and the unit of the values, the tangent, weight against derivative, the negative zone.
"use strict";

poolnb.figure("softmax", (stage) => {
  const { num, scale, formulas, SUBSCRIPTS } = poolnb;
  const bars = stage.panel({ label: "Three taps as bars, and the output", height: 240, width: 270 });
  const taps = stage.taps(bars, { values: [0.2, 0.55, 0.9], yTitle: "taps, in units of the scale" });
  const curve = stage.panel({ label: "The output as a function of one tap, with its tangent", height: 240, width: 185 });
  const pairs = stage.panel({ label: "Weight and derivative of each tap, as bars", height: 240, width: 150 });
  const beta = stage.slider({ label: "β", min: 0, max: 10, step: 0.1, value: 4 });
  const unit = stage.slider({
    label: "scale of the values", min: -1, max: 2, step: 0.05, value: 0,
    from: (v) => 10 ** v, says: (v) => `× ${num(v, v < 10 ? 2 : 0)}`,
  });
  const chosen = stage.choice({ label: "move", options: { 0: "tap 1", 1: "tap 2", 2: "tap 3" }, value: "1" });

  const pooled = (values) => formulas.soft(values.map((v) => v * unit.value), beta.value);

  function drawBars(y, weights) {
    bars.clear();
    const at = taps.draw({ right: 84, look: (i) => `fill: var(--op-soft); opacity: ${0.25 + 0.75 * weights[i]}` });
    const [left, right] = [38, bars.width - 84];
    const edge = y - 1 / (beta.value * unit.value);
    if (edge > 0) {
      bars.rect(left, at.y(Math.min(1, edge)), right - left, at.y(0) - at.y(Math.min(1, edge)), "zone");
      bars.text(right + 6, at.y(edge / 2), "derivative", "start", "faint");
      bars.text(right + 6, at.y(edge / 2) + 15, "below 0", "start", "faint");
    }
    bars.line(left, at.y(y), right, at.y(y), "curve", "stroke: var(--op-soft); pointer-events: none");
    bars.text(right + 6, at.y(y) + 4, `y = ${num(y * unit.value)}`, "start", "strong");
  }

  function drawCurve(i, result) {
    curve.clear();
    const x = scale(0, 1, 40, curve.width - 12);
    const y = scale(0, 1, 200, 26);
    const others = taps.values;
    const output = (t) => pooled(others.map((v, j) => (j === i ? t : v))).value / unit.value;
    const name = `x${SUBSCRIPTS[i + 1]}`;
    curve.axes(x, y, { xTicks: [0, 0.5, 1], yTicks: [0, 0.5, 1], xTitle: `${name}, the others held`, yTitle: "output y" });
    const points = Array.from({ length: 101 }, (_, k) => k / 100);
    curve.curve(points.map((t) => [x(t), y(output(t))]), "curve", "stroke: var(--op-soft)");
    const [t, now, slope] = [others[i], output(others[i]), result.derivatives[i]];
    const reach = 0.22 / Math.hypot(1, slope);
    curve.line(x(t - reach), y(now - slope * reach), x(t + reach), y(now + slope * reach), "arrow");
    curve.dot(x(t), y(now), 4.5, "ink");
    const up = now > 0.75;
    curve.text(poolnb.clamp(x(t), 84, curve.width - 50), y(now) + (up ? 32 : -22), `slope ${num(slope)}`, "middle", "strong halo");
  }

  function drawPairs({ weights, derivatives }) {
    pairs.clear();
    const y = scale(-0.5, 1.5, 200, 26);
    const wide = (pairs.width - 34) / 3;
    pairs.axes(scale(0, 1, 30, pairs.width - 4), y, { yTicks: [-0.5, 0, 1, 1.5], yTitle: "weight, derivative" });
    pairs.line(30, y(0), pairs.width - 4, y(0));
    weights.forEach((w, i) => {
      const x = 30 + wide * (i + 0.5);
      pairs.bar(x - 0.2 * wide, y(0), y(w), 0.34 * wide, "", "fill: var(--op-soft); opacity: 0.5");
      pairs.bar(x + 0.2 * wide, y(0), y(poolnb.clamp(derivatives[i], -0.5, 1.5)), 0.34 * wide, "", `fill: var(--op-${derivatives[i] < 0 ? "max" : "soft"})`);
      pairs.text(x, 218, `x${SUBSCRIPTS[i + 1]}`, "middle");
    });
  }

  stage.draw(() => {
    const result = pooled(taps.values);
    const i = Number(chosen.value);
    drawBars(result.value / unit.value, result.weights);
    drawCurve(i, result);
    drawPairs(result);
    const [w, x, y] = [result.weights[i], taps.values[i] * unit.value, result.value];
    const one = SUBSCRIPTS[i + 1];
    stage.say(
      `y = ${result.weights.map((v, j) => `${num(v)} · ${num(taps.values[j] * unit.value)}`).join(" + ")} = <b>${num(y)}</b>`,
      `∂y/∂x${one} = w (1 + β (x${one} − y)) = ${num(w)} · (1 + ${num(beta.value, 1)} · (${num(x)} − ${num(y)})) = <b>${num(result.derivatives[i])}</b>`,
    );
  });
});
