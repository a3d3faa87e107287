// S3Pool along one axis: the entries of the max map that a draw keeps, through one to three pools.
"use strict";

poolnb.figure("s3", "s3", (stage) => {
  const { num, range } = poolnb;
  const { maxMap, mean, s3Average, s3Expectation, s3Kept, uniforms } = poolnb.formulas;
  const [KERNEL, STRIDE, LENGTH] = [2, 2, 32];
  const panel = stage.panel("A signal, and what is left of it after each pool", 640, 330);
  const grid = stage.slider("strip g", 1, 3, 2, { from: (v) => 2 ** v });
  const pools = stage.slider("pools", 1, 3, 1);

  const bump = (i, center, width) => Math.exp(-(((i - center) / width) ** 2));
  const signal = range(LENGTH, (i) => 0.08 + 0.85 * bump(i, 9.5, 2.2) + 0.6 * bump(i, 23, 1.2));
  let draws; // the n-th draw has the seed n
  stage.restart = () => (draws = 1);
  stage.restart();
  const again = () => (draws += 1);
  stage.button("Draw again", again);
  stage.button("Draw 50", () => stage.repeat(50, again));

  // The signal after all pools, if `evaluate` makes a row of each max map.
  function through(evaluate) {
    let row = signal;
    range(pools.value, () => (row = evaluate(maxMap(row, KERNEL))));
    return row;
  }

  // Every max map of one draw with the entries that are kept, and what is left at the end.
  function draw(seed) {
    const uniform = uniforms(seed);
    const levels = [];
    const row = through((map) => {
      const kept = s3Kept(map.length, STRIDE, grid.value, uniform);
      levels.push({ map, kept });
      return kept.map((i) => map[i]);
    });
    return { levels, row };
  }

  function drawRow(values, top, title, look) {
    const plot = panel.plot({ left: 8, right: 8, top: top + 12, bottom: top + 58 }).slots(values.length, false);
    panel.text(8, top + 6, title, "start", "title");
    values.forEach((v, i) => plot.bar(i, v, look(i), "", 0.78));
    return plot;
  }

  function drawLevels(levels) {
    levels.forEach(({ map, kept }, level) => {
      const title = level ? `maxima of what is left after ${level}, kept ones blue` : "maxima of the signal, kept ones blue";
      const { at } = drawRow(map, 84 * level, title, (i) => (kept.includes(i) ? "own" : "bar"));
      for (let first = grid.value; first < map.length; first += grid.value) {
        panel.line(at(first - 0.5), 84 * level + 12, at(first - 0.5), 84 * level + 62, "guide");
      }
    });
  }

  function drawOutput(row, running, average) {
    const title = "output of this draw (bars), mean of the draws (dots), evaluation as the authors do (lines)";
    const short = "this draw (bars), mean (dots), authors’ (lines)";
    const { at, y } = drawRow(row, 84 * pools.value, panel.width > 560 ? title : short, () => "own");
    average.forEach((v, i) => panel.line(at(i - 0.39), y(v), at(i + 0.39), y(v), "curve low"));
    running.forEach((v, i) => panel.dot(at(i), y(v), 3.2, "ink halo"));
  }

  stage.draw(() => {
    const last = draw(draws);
    const rows = range(draws, (i) => draw(i + 1).row);
    const running = last.row.map((_, i) => mean(rows.map((row) => row[i])));
    const average = through((map) => s3Average(map, STRIDE));
    const expected = through((map) => s3Expectation(map, STRIDE, grid.value));
    panel.clear(84 * (pools.value + 1) + 8);
    drawLevels(last.levels);
    drawOutput(last.row, running, average);
    const apart = (row) => `<b>${num((100 * Math.hypot(...average.map((v, i) => v - row[i]))) / Math.hypot(...row), 1)} %</b>`;
    stage.say(
      `Of ${LENGTH} entries ${last.row.length} are left. Kept in the first pool: <b>${last.levels[0].kept.join(", ")}</b>`,
      `After ${draws} draw${draws > 1 ? "s" : ""}: the mean of the draws is ${apart(running)} from the authors’ evaluation`
        + (pools.value === 1 ? `. The exact mean is ${apart(expected)} from it` : ""),
    );
  });
});
