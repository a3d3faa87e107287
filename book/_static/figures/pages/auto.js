// AutoPool over time: frames, alpha, filling and its mask, and the variance that pulls at alpha.
"use strict";

poolnb.figure("auto", "auto", (stage) => {
  const { num, range } = poolnb;
  const { mean, soft, uniforms } = poolnb.formulas;
  const FRAMES = 16;
  const ALPHAS = { x: [-10, 20], bottom: 170, xTicks: [-10, 0, 10, 20], xTitle: "α" };
  const time = stage.panel("A recording: one bar per frame, as dark as its weight", 640, 190);
  const output = stage.panel("The output against alpha, with its tangent", 290, 215);
  const pull = stage.panel("The variance under the weights against alpha", 290, 215);
  const alpha = stage.slider("α", ...ALPHAS.x, 4, { step: 0.25 });
  const loud = stage.slider("loud frames", 0, FRAMES, 3);
  const filling = stage.slider("frames of filling", 0, 16, 8);
  const mask = stage.toggle("mask the filling");

  const uniform = uniforms(5);
  const noise = range(FRAMES, () => 0.12 * uniform());

  function frames() {
    const first = Math.round((FRAMES - loud.value) / 2);
    return noise.map((v, i) => v + (i >= first && i < first + loud.value ? 0.82 : 0.15));
  }

  function drawTime(real, { value, weights }) {
    const words = { yTicks: [0, 0.5, 1], yTitle: "probability of a bark, frame by frame" };
    const plot = time.plot({ right: 72, ...words }).slots(FRAMES + filling.value, false);
    const most = Math.max(...weights);
    real.forEach((v, i) => plot.bar(i, v, "own", `stroke: var(--own); fill-opacity: ${weights[i] / most}`, 0.75));
    range(filling.value, (i) => plot.bar(FRAMES + i, 0.1, mask.value ? "empty" : "cell", "", 0.75));
    const title = mask.value ? "filling, masked" : "filling, counted as 0";
    if (filling.value) time.text(plot.at(FRAMES - 0.4), plot.bottom + 17, title, "start", "faint");
    plot.level(value, "curve own", `y = ${num(value)}`);
  }

  function drawOutput(real, counted, result) {
    const plot = output.plot({ ...ALPHAS, yTicks: [0, 0.5, 1], yTitle: "output y" });
    output.line(plot.x(0), plot.bottom, plot.x(0), plot.top, "guide");
    output.text(plot.x(0) + 5, 38, "mean", "start", "faint");
    if (counted.length > real.length) plot.curve((a) => soft(real, a).value, "guide");
    plot.curve((a) => soft(counted, a).value);
    plot.dot(alpha.value, result.value, result.pull);
  }

  function drawPull(counted, result) {
    const yTitle = "∂y/∂α, the variance under the weights";
    const plot = pull.plot({ ...ALPHAS, left: 44, y: [0, 0.2], yTicks: [0, 0.1, 0.2], yTitle });
    plot.curve((a) => soft(counted, a).pull);
    const [cx, cy] = [plot.x(alpha.value), plot.y(result.pull)];
    pull.line(cx, plot.bottom, cx, cy, "guide");
    plot.dot(alpha.value, result.pull);
    pull.text(Math.min(cx + 9, pull.width - 50), cy - 4, num(result.pull, 3), "start", "strong halo");
  }

  stage.draw(() => {
    const real = frames();
    const counted = mask.value ? real : [...real, ...range(filling.value, () => 0)];
    const result = soft(counted, alpha.value);
    drawTime(real, result);
    drawOutput(real, counted, result);
    drawPull(counted, result);
    const alone = soft(real, alpha.value).value;
    stage.say(
      `y = Σ w x over ${counted.length} frames = <b>${num(result.value)}</b>; the mean is ${num(mean(counted))}, the maximum ${num(Math.max(...counted))}`,
      `∂y/∂α = Σ w (x − y)² = <b>${num(result.pull, 4)}</b>`,
      filling.value === 0 ? "No filling"
        : mask.value ? `The ${filling.value} frames of filling do not count`
          : `Without the ${filling.value} frames of filling, y would be ${num(alone)}: filling moves it by <b>${num(result.value - alone)}</b>`,
    );
  });
});
