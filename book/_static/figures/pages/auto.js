// AutoPool over time: frames, alpha, filling and its mask, and the variance that pulls at alpha.
"use strict";

poolnb.figure("auto", (stage) => {
  const { num, scale, formulas } = poolnb;
  const FRAMES = 16;
  const time = stage.panel({ label: "A recording: one bar per frame, as dark as its weight", height: 190, width: 640 });
  const output = stage.panel({ label: "The output against alpha, with its tangent", height: 215, width: 290 });
  const pull = stage.panel({ label: "The variance under the weights against alpha", height: 215, width: 290 });
  const alpha = stage.slider({ label: "α", min: -10, max: 20, step: 0.25, value: 4 });
  const loud = stage.slider({ label: "loud frames", min: 0, max: FRAMES, step: 1, value: 3, says: (v) => num(v, 0) });
  const filling = stage.slider({ label: "frames of filling", min: 0, max: 16, step: 1, value: 8, says: (v) => num(v, 0) });
  const mask = stage.toggle({ label: "mask the filling" });

  const uniform = formulas.uniforms(5);
  const noise = Array.from({ length: FRAMES }, () => 0.12 * uniform());

  function frames() {
    const first = Math.round((FRAMES - loud.value) / 2);
    return noise.map((v, i) => (i >= first && i < first + loud.value ? 0.82 + v : 0.15 + v));
  }

  function drawTime(real, counted, result) {
    time.clear();
    const all = [...real, ...Array(filling.value).fill(0)];
    const x = (i) => 38 + ((time.width - 110) / all.length) * (i + 0.5);
    const wide = Math.min(20, (0.75 * (time.width - 110)) / all.length);
    const y = scale(0, 1, 150, 26);
    const most = Math.max(...result.weights);
    time.axes(scale(0, 1, 38, time.width - 72), y, { yTicks: [0, 0.5, 1], yTitle: "probability of a bark, frame by frame" });
    all.forEach((v, i) => {
      if (i < real.length) time.bar(x(i), y(0), y(v), wide, "", `fill: var(--op-auto); opacity: ${0.15 + (0.85 * result.weights[i]) / most}`);
      else time.rect(x(i) - wide / 2, y(0) - 12, wide, 11, i < counted.length ? "cell" : "empty");
    });
    if (filling.value) time.text(x(real.length) - wide / 2, 167, mask.value ? "filling, masked" : "filling, counted as 0", "start", "faint");
    time.line(38, y(result.value), time.width - 72, y(result.value), "curve", "stroke: var(--op-auto)");
    time.text(time.width - 66, y(result.value) + 4, `y = ${num(result.value)}`, "start", "strong");
  }

  const points = Array.from({ length: 121 }, (_, k) => -10 + k / 4);

  function drawOutput(counted, real, result) {
    output.clear();
    const x = scale(-10, 20, 38, output.width - 12);
    const y = scale(0, 1, 170, 26);
    output.axes(x, y, { xTicks: [-10, 0, 10, 20], yTicks: [0, 0.5, 1], xTitle: "α", yTitle: "output y" });
    output.line(x(0), 170, x(0), 26, "guide");
    output.text(x(0) + 5, 38, "mean", "start", "faint");
    if (counted.length > real.length) output.curve(points.map((a) => [x(a), y(formulas.soft(real, a).value)]), "thin", "stroke-dasharray: 3 3");
    output.curve(points.map((a) => [x(a), y(formulas.soft(counted, a).value)]), "curve", "stroke: var(--op-auto)");
    const [dx, dy] = [x(1) - x(0), (y(1) - y(0)) * result.pull];
    const reach = 42 / Math.hypot(dx, dy);
    const [cx, cy] = [x(alpha.value), y(result.value)];
    output.line(cx - reach * dx, cy - reach * dy, cx + reach * dx, cy + reach * dy, "arrow");
    output.dot(cx, cy, 4.5, "ink");
  }

  function drawPull(counted, result) {
    pull.clear();
    const x = scale(-10, 20, 44, pull.width - 12);
    const y = scale(0, 0.2, 170, 26);
    pull.axes(x, y, { xTicks: [-10, 0, 10, 20], yTicks: [0, 0.1, 0.2], xTitle: "α", yTitle: "∂y/∂α, the variance under the weights" });
    pull.curve(points.map((a) => [x(a), y(formulas.soft(counted, a).pull)]), "curve", "stroke: var(--op-auto)");
    const [cx, cy] = [x(alpha.value), y(result.pull)];
    pull.line(cx, 170, cx, cy, "guide");
    pull.dot(cx, cy, 4.5, "ink");
    pull.text(Math.min(cx + 9, pull.width - 50), cy - 4, num(result.pull, 3), "start", "strong halo");
  }

  stage.draw(() => {
    const real = frames();
    const counted = mask.value ? real : [...real, ...Array(filling.value).fill(0)];
    const result = formulas.soft(counted, alpha.value);
    drawTime(real, counted, result);
    drawOutput(counted, real, result);
    drawPull(counted, result);
    const alone = formulas.soft(real, alpha.value).value;
    stage.say(
      `y = Σ w x over ${counted.length} frames = <b>${num(result.value)}</b>; the mean is ${num(formulas.mean(counted))}, the maximum ${num(Math.max(...counted))}`,
      `∂y/∂α = Σ w (x − y)² = <b>${num(result.pull, 4)}</b>`,
      filling.value === 0 ? "No filling"
        : mask.value ? `The ${filling.value} frames of filling do not count`
          : `Without the ${filling.value} frames of filling, y would be ${num(alone)}: filling moves it by <b>${num(result.value - alone)}</b>`,
    );
  });
});
