// The ledger: what more seeds would do to the intervals of the records, and the power to see an effect.
"use strict";

poolnb.figure("ledger", "avg", (stage) => {
  const { num, range, clamp, findings } = poolnb;
  const { criticalT, power } = poolnb.formulas;
  const MOST = 40;
  const forest = stage.panel("Intervals of the chosen claim", 340, 240);
  const curve = stage.panel("Power against the number of seeds", 280, 240);
  const first = Math.max(0, findings.findIndex(({ claim }) => claim === "C6"));
  const chosen = stage.choice("finding", findings.map(({ claim, what }) => `${claim}: ${what}`), first);
  const seeds = stage.slider("seeds n", 3, MOST, 5);
  const effect = stage.slider("true difference", 0, 10, 3, { step: 0.1, says: (v) => `${num(v, 1)} points` });
  const tests = stage.slider("comparisons", 1, 20, 1);

  // Each difference alone, by the freedom of its study, at the chosen level.
  const freedom = (one, n) => Math.max(1, Math.round(one.df * (n - 1)));
  const half = (one, n, alpha) => (one.scatter * criticalT(alpha, freedom(one, n))) / Math.sqrt(n);

  function drawForest(one, alpha) {
    const rows = findings.filter(({ claim }) => claim === one.claim);
    const bottom = 34 + 34 * rows.length;
    forest.clear(bottom + 44);
    const reach = 1.05 * Math.max(...rows.map((row) => Math.abs(row.mean) + row.half), 1);
    const unit = [1, 2, 5, 10, 20, 50].find((v) => reach / v < 4);
    const xTicks = range(7, (i) => (i - 3) * unit).filter((v) => Math.abs(v) <= reach);
    const plot = forest.plot({ x: [-reach, reach], left: 8, right: 8, bottom, xTicks, xTitle: "points" });
    const x = (v) => clamp(plot.x(v), plot.left, plot.right);
    const letters = Math.floor(forest.width / 8.4);
    rows.forEach((row, i) => {
      const y = 34 + 34 * i;
      const words = row.what.length > letters ? `${row.what.slice(0, letters - 1)}…` : row.what;
      forest.text(8, y - 10, words, "start", row === one ? "strong" : "faint");
      forest.line(plot.x(0), y - 7, plot.x(0), y + 7);
      const interval = (wide, look, width) =>
        forest.line(x(row.mean - wide), y, x(row.mean + wide), y, `curve ${look}`, `stroke-width: ${width}`);
      const would = half(row, seeds.value, alpha);
      const look = Math.abs(row.mean) > would ? "clear" : "vague";
      interval(row.half, "bar", 7);
      interval(would, look, row === one ? 3.5 : 2);
      forest.dot(x(row.mean), y, 3.5, look);
    });
  }

  function drawCurve(chance, now) {
    const plot = curve.plot({
      x: [0, MOST], xTicks: [0, 10, 20, 30, 40], xTitle: "seeds n", yTicks: [0, 0.5, 0.8, 1], yTitle: "chance to see it (power)",
    });
    plot.level(0.8);
    plot.curve(range(MOST - 2, (k) => [k + 3, chance(k + 3)]), "curve clear");
    plot.dot(seeds.value, now);
    const label = clamp(plot.x(seeds.value) + 10, 50, curve.width - 70);
    curve.text(label, plot.y(now) + (now > 0.5 ? 20 : -12), `${num(100 * now, 0)} %`, "start", "strong halo");
  }

  stage.draw(() => {
    const one = findings[chosen.value];
    const alpha = 0.05 / tests.value;
    const chance = (n) => power(effect.value / one.scatter, n, alpha, freedom(one, n));
    const now = chance(seeds.value);
    drawForest(one, alpha);
    drawCurve(chance, now);
    let needed = 3;
    while (effect.value && needed <= 1000 && chance(needed) < 0.8) needed += needed < MOST ? 1 : 5;
    stage.say(
      `Recorded: ${num(one.mean)} ± ${num(one.half)} points, n = ${one.n}; scatter of one seed s = ${num(one.scatter)}`,
      `With n = ${seeds.value}: <b>± ${num(half(one, seeds.value, alpha))}</b> = t · s / √n, t = ${num(criticalT(alpha, freedom(one, seeds.value)))}`,
      effect.value === 0 ? `No difference: it is still “seen” in <b>${num(100 * now, 1)} %</b> of such experiments`
        : `A true difference of ${num(effect.value, 1)} points is seen in <b>${num(100 * now, 0)} %</b> of such experiments; for 80 % it takes <b>${needed > 1000 ? "more than 1000" : needed}</b> seeds`,
    );
  });
});
