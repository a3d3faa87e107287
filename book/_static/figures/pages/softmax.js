// Softmax-weighted pooling: beta and the unit of the values, the tangent, weight against derivative, the negative zone.
"use strict";

poolnb.figure("softmax", "soft", (stage) => {
  const { num, SUBSCRIPTS } = poolnb;
  const { soft } = poolnb.formulas;
  const bars = stage.panel("Three taps as bars, and the output", 270, 240);
  const taps = stage.taps(bars, [0.2, 0.55, 0.9], { yTitle: "taps, in units of the scale" });
  const curve = stage.panel("The output as a function of one tap, with its tangent", 185, 240);
  const pairs = stage.panel("Weight and derivative of each tap, as bars", 150, 240);
  const beta = stage.slider("β", 0, 10, 4, { step: 0.1 });
  const unit = stage.slider("scale of the values", -1, 2, 0, {
    step: 0.05, from: (v) => 10 ** v, says: (v) => `× ${num(v, v < 10 ? 2 : 0)}`,
  });
  const chosen = stage.choice("move", ["tap 1", "tap 2", "tap 3"], 1);

  const pooled = (values) => soft(values.map((v) => v * unit.value), beta.value);

  function drawBars(y, weights) {
    const plot = taps.draw({ right: 84, look: (i) => ["own", `opacity: ${0.4 + 0.6 * weights[i]}`] });
    const edge = y - 1 / (beta.value * unit.value);
    if (edge > 0) {
      const top = plot.y(Math.min(1, edge));
      bars.rect(plot.left, top, plot.right - plot.left, plot.bottom - top, "zone");
      bars.text(plot.right + 6, plot.y(edge / 2), "derivative", "start", "faint");
      bars.text(plot.right + 6, plot.y(edge / 2) + 15, "below 0", "start", "faint");
    }
    plot.level(y, "curve own", `y = ${num(y * unit.value)}`);
  }

  function drawCurve(i, slope) {
    const xTitle = `x${SUBSCRIPTS[i + 1]}, the others held`;
    const plot = curve.plot({ left: 40, xTicks: [0, 0.5, 1], yTicks: [0, 0.5, 1], xTitle, yTitle: "output y" });
    const output = (t) => pooled(taps.values.with(i, t)).value / unit.value;
    const [t, now] = [taps.values[i], output(taps.values[i])];
    plot.curve(output);
    plot.dot(t, now, slope);
    const [x, y] = [poolnb.clamp(plot.x(t), 84, curve.width - 50), plot.y(now) + (now > 0.75 ? 32 : -22)];
    curve.text(x, y, `slope ${num(slope)}`, "middle", "strong halo");
  }

  function drawPairs({ weights, derivatives }) {
    const words = { yTicks: [-0.5, 0, 1, 1.5], yTitle: "weight, derivative" };
    const plot = pairs.plot({ left: 36, right: 4, y: [-0.5, 1.5], ...words }).slots(3);
    plot.level(0, "axis");
    weights.forEach((w, i) => {
      const d = poolnb.clamp(derivatives[i], -0.5, 1.5);
      plot.bar(i, w, "own", "opacity: 0.5", 0.34, -0.2);
      plot.bar(i, d, d < 0 ? "low" : "own", "", 0.34, 0.2);
    });
  }

  stage.draw(() => {
    const result = pooled(taps.values);
    const i = chosen.value;
    drawBars(result.value / unit.value, result.weights);
    drawCurve(i, result.derivatives[i]);
    drawPairs(result);
    const x = taps.values.map((v) => num(v * unit.value));
    const w = result.weights.map((v) => num(v));
    const [y, name] = [num(result.value), `x${SUBSCRIPTS[i + 1]}`];
    stage.say(
      `y = ${w.map((v, j) => `${v} · ${x[j]}`).join(" + ")} = <b>${y}</b>`,
      `∂y/∂${name} = w (1 + β (${name} − y)) = ${w[i]} · (1 + ${num(beta.value, 1)} · (${x[i]} − ${y})) = <b>${num(result.derivatives[i])}</b>`,
    );
  });
});
