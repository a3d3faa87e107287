// Stochastic pooling: the running mean of draws, and what is left of a signal after one to three pools.
"use strict";

poolnb.figure("stochastic", (stage) => {
  const { num, scale, formulas } = poolnb;
  const [KERNEL, LEVELS, LENGTH] = [3, 3, 81];
  const bars = stage.panel({ label: "Four taps; the drawn one is dark", height: 230, width: 190 });
  const taps = stage.taps(bars, { values: [0.15, 0.3, 0.9, 0.5] });
  const running = stage.panel({ label: "The mean of the draws so far", height: 230, width: 190 });
  const levels = stage.panel({ label: "The mean of a signal after one to three pools", height: 230, width: 215 });

  let uniform = formulas.uniforms(3);
  let draws = []; // numbers in (0, 1): a tap follows from one of them and from the taps
  let signals = [];
  const draw = () => draws.push(uniform());
  stage.button("Draw", draw);
  stage.button("Draw 100", () => stage.repeat(100, draw));
  stage.button("Send the signal through again", () => (signals = [...signals.slice(-19), pass(one)]));
  stage.restart = () => {
    uniform = formulas.uniforms(3);
    draws = [];
    signals = [pass(one)];
  };

  // A signal as it comes out of a ReLU: half of it zeros.
  const source = formulas.uniforms(8);
  const signal = Array.from({ length: LENGTH }, () => Math.max(0, Math.sqrt(-2 * Math.log(source())) * Math.cos(2 * Math.PI * source())));

  function pass(pool) {
    const means = [formulas.mean(signal)];
    let row = signal;
    for (let level = 0; level < LEVELS; level += 1) {
      row = Array.from({ length: row.length / KERNEL }, (_, i) => pool(row.slice(i * KERNEL, (i + 1) * KERNEL)));
      means.push(formulas.mean(row));
    }
    return means;
  }

  const one = (x) => x[formulas.drawTap(formulas.stochastic(x).weights, uniform)];
  const weighted = pass((x) => formulas.stochastic(x).value);
  const plain = pass((x) => formulas.avg(x).value);

  function drawRunning(x, result, drawn) {
    running.clear();
    const most = Math.max(20, drawn.length);
    const at = scale(0, most, 34, running.width - 8);
    const y = scale(0, 1, 180, 26);
    running.axes(at, y, { xTicks: [0, most], yTicks: [0, 0.5, 1], xTitle: "draws", yTitle: "mean of the draws" });
    for (const [value, words, below] of [[result.value, "weighted mean", false], [formulas.mean(x), "plain mean", true]]) {
      running.line(34, y(value), running.width - 8, y(value), "guide");
      running.text(running.width - 8, y(value) + (below ? 15 : -6), words, "end", "faint halo");
    }
    let total = 0;
    const means = drawn.map((tap, i) => [at(i + 1), y((total += x[tap]) / (i + 1))]);
    running.curve(means, "curve", "stroke: var(--op-stochastic)");
    if (means.length) running.dot(...means.at(-1), 4, "ink");
  }

  function drawLevels() {
    levels.clear();
    const at = scale(0, LEVELS, 34, levels.width - 76);
    const y = scale(0, 1.6, 180, 26);
    levels.axes(at, y, { xTicks: [0, 1, 2, 3], yTicks: [0, 0.5, 1, 1.5], xTitle: "pools", yTitle: "mean of the signal" });
    const path = (means) => means.map((v, level) => [at(level), y(v)]);
    for (const means of signals) levels.curve(path(means), "thin", "stroke: var(--op-stochastic); opacity: 0.7");
    levels.curve(path(weighted), "curve");
    levels.curve(path(plain), "curve", "stroke: var(--op-avg)");
    levels.text(levels.width - 70, y(weighted[LEVELS]) + 4, "weighted", "start", "strong");
    levels.text(levels.width - 70, y(plain[LEVELS]) + 4, "plain", "start", "strong");
  }

  signals = [pass(one)];
  stage.draw(() => {
    const x = taps.values;
    const result = formulas.stochastic(x);
    const drawn = draws.map((u) => formulas.drawTap(result.weights, () => u));
    bars.clear();
    const at = taps.draw({ look: (i) => `fill: var(--op-stochastic); opacity: ${drawn.at(-1) === i ? 1 : 0.35}` });
    result.weights.forEach((w, i) => bars.text(at.x(i), 226, num(w), "middle", "tick"));
    drawRunning(x, result, drawn);
    drawLevels();
    const sofar = drawn.length ? formulas.mean(drawn.map((tap) => x[tap])) : NaN;
    stage.say(
      `weighted mean: ${result.weights.map((w, i) => `${num(w)} · ${num(x[i])}`).join(" + ")} = <b>${num(result.value)}</b>; plain mean: <b>${num(formulas.mean(x))}</b>`,
      drawn.length ? `Mean of ${drawn.length} draw${drawn.length > 1 ? "s" : ""}: <b>${num(sofar)}</b>` : "No draws yet",
      `After three pools the drawn signal has mean <b>${num(signals.at(-1)[LEVELS])}</b>, the weighted one <b>${num(weighted[LEVELS])}</b>, the plain one <b>${num(plain[LEVELS])}</b>`,
    );
  });
});
