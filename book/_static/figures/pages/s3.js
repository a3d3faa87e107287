// S3Pool along one axis: the entries of the max map that a draw keeps, through one to three pools.
"use strict";

poolnb.figure("s3", (stage) => {
  const { num, scale, formulas } = poolnb;
  const [KERNEL, STRIDE, LENGTH] = [2, 2, 32];
  const panel = stage.panel({ label: "A signal, and what is left of it after each pool", height: 330, width: 640 });
  const grid = stage.slider({ label: "strip g", min: 1, max: 3, step: 1, value: 2, from: (v) => 2 ** v, says: (v) => num(v, 0) });
  const pools = stage.slider({ label: "pools", min: 1, max: 3, step: 1, value: 1, says: (v) => num(v, 0) });

  const signal = Array.from({ length: LENGTH }, (_, i) => 0.08 + 0.85 * Math.exp(-(((i - 9.5) / 2.2) ** 2)) + 0.6 * Math.exp(-(((i - 23) / 1.2) ** 2)));
  let seeds = [1];
  const again = () => seeds.push(seeds.at(-1) + 1);
  stage.button("Draw again", again);
  stage.button("Draw 50", () => stage.repeat(50, again));
  stage.restart = () => (seeds = [1]);

  // Every level of one draw: the row, its max map, and the entries that are kept.
  function pass(seed) {
    const uniform = formulas.uniforms(seed);
    const levels = [];
    let row = signal;
    for (let level = 0; level < pools.value; level += 1) {
      const map = formulas.maxMap(row, KERNEL);
      const kept = formulas.s3Kept(map.length, STRIDE, grid.value, uniform);
      levels.push({ row, map, kept });
      row = kept.map((i) => map[i]);
    }
    return { levels, row };
  }

  function through(evaluate) {
    let row = signal;
    for (let level = 0; level < pools.value; level += 1) row = evaluate(formulas.maxMap(row, KERNEL));
    return row;
  }

  function drawRow(values, top, title, look) {
    const y = scale(0, 1.02, top + 58, top + 12);
    const wide = (panel.width - 16) / values.length;
    panel.text(8, top + 6, title, "start", "title");
    panel.line(8, y(0), panel.width - 8, y(0));
    values.forEach((v, i) => panel.bar(8 + wide * (i + 0.5), y(0), y(v), 0.78 * wide, "bar", look(i)));
    return { x: (i) => 8 + wide * (i + 0.5), y, wide };
  }

  stage.draw(() => {
    const last = pass(seeds.at(-1));
    const outputs = seeds.map((seed) => pass(seed).row);
    const running = last.row.map((_, i) => formulas.mean(outputs.map((row) => row[i])));
    const average = through((map) => formulas.s3Average(map, STRIDE));
    const expected = through((map) => formulas.s3Expectation(map, STRIDE, grid.value));
    panel.clear(84 * (pools.value + 1) + 8);
    last.levels.forEach(({ map, kept }, level) => {
      const title = level ? `maxima of what is left after ${level}, kept ones blue` : "maxima of the signal, kept ones blue";
      drawRow(map, 84 * level, title, (i) => (kept.includes(i) ? "fill: var(--op-s3)" : ""));
      const strips = map.length / grid.value;
      for (let s = 1; s < strips; s += 1) {
        const x = 8 + ((panel.width - 16) * s) / strips;
        panel.line(x, 84 * level + 12, x, 84 * level + 62, "guide", "opacity: 0.6");
      }
    });
    const title = "output of this draw (bars), mean of the draws (dots), evaluation as the authors do (lines)";
    const short = "this draw (bars), mean (dots), authors' (lines)";
    const at = drawRow(last.row, 84 * pools.value, panel.width > 560 ? title : short, () => "fill: var(--op-s3)");
    average.forEach((v, i) => panel.line(at.x(i) - 0.39 * at.wide, at.y(v), at.x(i) + 0.39 * at.wide, at.y(v), "curve", "stroke: var(--op-max)"));
    running.forEach((v, i) => panel.dot(at.x(i), at.y(v), 3.2, "ink halo"));
    const norm = (row) => Math.hypot(...row);
    const apart = norm(average.map((v, i) => v - running[i])) / norm(running);
    stage.say(
      `Of ${LENGTH} entries ${last.row.length} are left. Kept in the first pool: <b>${last.levels[0].kept.join(", ")}</b>`,
      `${seeds.length > 1 ? `${seeds.length} draws: their` : "1 draw: its"} mean and the authors' evaluation are <b>${num(100 * apart, 1)} %</b> apart`
        + (pools.value === 1 ? `; exactly, <b>${num((100 * norm(average.map((v, i) => v - expected[i]))) / norm(expected), 1)} %</b>` : ""),
    );
  });
});
