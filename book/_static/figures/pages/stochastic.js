// Stochastic pooling: the running mean of draws, and what is left of a signal after one to three pools.
"use strict";

poolnb.figure("stochastic", "stochastic", (stage) => {
  const { num, range } = poolnb;
  const { drawTap, mean, pieces, stochastic, uniforms } = poolnb.formulas;
  const [KERNEL, LEVELS, LENGTH] = [3, 3, 81];
  const bars = stage.panel("Four taps; the drawn one is dark", 190, 230);
  const taps = stage.taps(bars, [0.15, 0.3, 0.9, 0.5]);
  const running = stage.panel("The mean of the draws so far", 190, 230);
  const levels = stage.panel("The mean of a signal after one to three pools", 215, 230);

  // A draw is a number in (0, 1): a tap follows from it and from the taps.
  let uniform, draws, signals;
  stage.restart = () => {
    uniform = uniforms(3);
    draws = [];
    signals = [pass(one)];
  };
  const draw = () => draws.push(uniform());
  stage.button("Draw", draw);
  stage.button("Draw 100", () => stage.repeat(100, draw));
  stage.button("Send the signal through again", () => (signals = [...signals.slice(-19), pass(one)]));

  // A signal as it comes out of a ReLU: half of it zeros.
  const source = uniforms(8);
  const signal = range(LENGTH, () => Math.max(0, Math.sqrt(-2 * Math.log(source())) * Math.cos(2 * Math.PI * source())));

  // The mean of the signal before the first pool and after each.
  function pass(pool) {
    let row = signal;
    const next = () => (row = pieces(row, KERNEL).map(pool));
    return range(LEVELS + 1, (level) => [level, mean(level ? next() : row)]);
  }

  const one = (x) => x[drawTap(stochastic(x).weights, uniform)];
  const weighted = pass((x) => stochastic(x).value);
  const plain = pass(mean);

  function drawRunning(means, weightedMean, plainMean) {
    const most = Math.max(20, means.length);
    const words = { xTicks: [0, most], yTicks: [0, 0.5, 1], xTitle: "draws", yTitle: "mean of the draws" };
    const plot = running.plot({ x: [0, most], left: 34, right: 8, bottom: 180, ...words });
    for (const [value, words, below] of [[weightedMean, "weighted mean", -6], [plainMean, "plain mean", 15]]) {
      plot.level(value);
      running.text(plot.right, plot.y(value) + below, words, "end", "faint halo");
    }
    plot.curve(means);
    if (means.length) plot.dot(...means.at(-1));
  }

  function drawLevels() {
    const words = { xTicks: [0, 1, 2, 3], yTicks: [0, 0.5, 1, 1.5], xTitle: "pools", yTitle: "mean of the signal" };
    const top = Math.max(1.6, ...signals.flat().map(([, v]) => v));
    const plot = levels.plot({ x: [0, LEVELS], y: [0, top], left: 34, right: 76, bottom: 180, ...words });
    for (const means of signals) plot.curve(means, "thin own");
    plot.curve(weighted, "curve");
    plot.curve(plain, "curve", "stroke: var(--op-avg); stroke-dasharray: 5 3");
    for (const [means, words] of [[weighted, "weighted"], [plain, "plain"]]) {
      levels.text(plot.right + 6, plot.y(means[LEVELS][1]) + 4, words, "start", "strong");
    }
  }

  stage.restart();
  stage.draw(() => {
    const x = taps.values;
    const { value, weights } = stochastic(x);
    const drawn = draws.map((u) => drawTap(weights, () => u));
    const plot = taps.draw({ look: (i) => ["own", `opacity: ${drawn.at(-1) === i ? 1 : 0.5}`] });
    weights.forEach((w, i) => bars.text(plot.at(i), 226, num(w), "middle", "tick"));
    let total = 0;
    const means = drawn.map((tap, i) => [i + 1, (total += x[tap]) / (i + 1)]);
    drawRunning(means, value, mean(x));
    drawLevels();
    const [last, heavy, light] = [signals.at(-1), weighted, plain].map((path) => num(path[LEVELS][1]));
    stage.say(
      `weighted mean: ${weights.map((w, i) => `${num(w)} · ${num(x[i])}`).join(" + ")} = <b>${num(value)}</b>; plain mean: <b>${num(mean(x))}</b>`,
      drawn.length ? `Mean of ${drawn.length} draw${drawn.length > 1 ? "s" : ""}: <b>${num(means.at(-1)[1])}</b>` : "No draws yet",
      `After three pools the drawn signal has mean <b>${last}</b>, the weighted one <b>${heavy}</b>, the plain one <b>${light}</b>`,
    );
  });
});
