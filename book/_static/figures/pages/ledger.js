// The ledger: what more seeds would do to the intervals of the records, and the power to see an effect.
"use strict";

poolnb.figure("ledger", (stage) => {
  const { num, scale, formulas } = poolnb;
  const MOST = 40;
  const forest = stage.panel({ label: "Intervals of the chosen claim", height: 240, width: 340 });
  const curve = stage.panel({ label: "Power against the number of seeds", height: 240, width: 280 });
  const findings = poolnb.findings;
  const options = Object.fromEntries(findings.map((one, i) => [i, `${one.claim}: ${one.what}`]));
  const first = Math.max(0, findings.findIndex((one) => one.claim === "C6"));
  const chosen = stage.choice({ label: "finding", options, value: String(first) });
  const seeds = stage.slider({ label: "seeds n", min: 3, max: MOST, step: 1, value: 5, says: (v) => num(v, 0) });
  const effect = stage.slider({ label: "true difference", min: 0, max: 10, step: 0.1, value: 3, says: (v) => `${num(v, 1)} points` });
  const tests = stage.slider({ label: "comparisons", min: 1, max: 20, step: 1, value: 1, says: (v) => num(v, 0) });

  const critical = (one, n, alpha) => formulas.criticalT(alpha, Math.max(1, Math.round(one.df * (n - 1))));
  const half = (one, n, alpha) =>
    ((one.half * critical(one, n, alpha)) / critical(one, one.n, 0.05)) * Math.sqrt(one.n / n);

  function drawForest(one, alpha) {
    const rows = findings.filter((other) => other.claim === one.claim);
    const bottom = 34 + 34 * rows.length;
    forest.clear(bottom + 44);
    const reach = Math.max(...rows.map((row) => Math.abs(row.mean) + half(row, row.n, 0.05)), 1);
    const x = scale(-reach, reach, 8, forest.width - 8);
    const ticks = [-reach, -reach / 2, 0, reach / 2, reach].map((v) => Number(v.toPrecision(1)));
    forest.axes(x, scale(0, 1, bottom, bottom), { xTicks: ticks.filter((v) => Math.abs(v) <= reach), xTitle: "points" });
    forest.line(x(0), 10, x(0), bottom, "axis");
    const clip = (v) => poolnb.clamp(x(v), 8, forest.width - 8);
    const letters = Math.floor(forest.width / 6.4);
    rows.forEach((row, i) => {
      const y = 34 + 34 * i;
      const words = row.what.length > letters ? `${row.what.slice(0, letters - 1)}…` : row.what;
      forest.text(8, y - 10, words, "start", row === one ? "strong halo" : "faint halo", "font-size: 12px");
      const wide = half(row, row.n, 0.05);
      forest.line(clip(row.mean - wide), y, clip(row.mean + wide), y, "curve", "stroke: var(--play-bar); stroke-width: 7");
      const would = half(row, seeds.value, alpha);
      const clear = Math.abs(row.mean) > would;
      const look = `stroke: var(--op-${clear ? "avg" : "attention"}); stroke-width: ${row === one ? 3.5 : 2}`;
      forest.line(clip(row.mean - would), y, clip(row.mean + would), y, "curve", look);
      forest.dot(clip(row.mean), y, 3.5, "", `fill: var(--op-${clear ? "avg" : "attention"})`);
    });
  }

  function drawCurve(one, alpha, power) {
    curve.clear();
    const x = scale(0, MOST, 38, curve.width - 10);
    const y = scale(0, 1, 195, 26);
    curve.axes(x, y, { xTicks: [0, 10, 20, 30, 40], yTicks: [0, 0.5, 0.8, 1], xTitle: "seeds n", yTitle: "chance to see it (power)" });
    curve.line(38, y(0.8), curve.width - 10, y(0.8), "guide");
    const points = Array.from({ length: MOST - 2 }, (_, k) => k + 3);
    curve.curve(points.map((n) => [x(n), y(formulas.power(effect.value / one.scatter, n, alpha))]), "curve", "stroke: var(--op-avg)");
    curve.dot(x(seeds.value), y(power), 5, "ink");
    const label = poolnb.clamp(x(seeds.value) + 10, 50, curve.width - 70);
    curve.text(label, y(power) + (power > 0.5 ? 20 : -12), `${num(100 * power, 0)} %`, "start", "strong halo");
  }

  stage.draw(() => {
    const one = findings[Number(chosen.value)];
    const alpha = 0.05 / tests.value;
    const power = formulas.power(effect.value / one.scatter, seeds.value, alpha);
    drawForest(one, alpha);
    drawCurve(one, alpha, power);
    const recorded = half(one, one.n, 0.05);
    const would = half(one, seeds.value, alpha);
    let needed = 3;
    while (needed <= 1000 && formulas.power(effect.value / one.scatter, needed, alpha) < 0.8) needed += needed < MOST ? 1 : 5;
    stage.say(
      `Recorded: ${num(one.mean)} ± ${num(recorded)} points, n = ${one.n}; scatter of one pair s = ${num(one.scatter)}`,
      `With n = ${seeds.value}: <b>± ${num(would)}</b>, since it shrinks as t / √n`,
      effect.value === 0 ? `No difference: it is still “seen” in <b>${num(100 * power, 1)} %</b> of such experiments`
        : `A true difference of ${num(effect.value, 1)} points is seen in <b>${num(100 * power, 0)} %</b> of such experiments; for 80 % it takes <b>${needed > 1000 ? "more than 1000" : needed}</b> seeds`,
    );
  });
});
