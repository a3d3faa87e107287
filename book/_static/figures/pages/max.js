// Max pooling: the gradient's arrow jumps at a tie; the kink; the segment of subgradients.
"use strict";

poolnb.figure("max", (stage) => {
  const { num, scale, formulas } = poolnb;
  const bars = stage.panel({ label: "Three taps as bars; an arrow shows where the gradient goes", height: 275, width: 230 });
  const taps = stage.taps(bars, { values: [0.7, 0.5, 0.3] });
  const kink = stage.panel({ label: "The output as a function of the first tap", height: 275, width: 180 });
  const segment = stage.panel({ label: "The derivatives with respect to the first two taps, as a point in the plane", height: 275, width: 180 });
  stage.button("Make a tie of taps 1 and 2", () => {
    const top = Math.max(taps.values[0], taps.values[1], taps.values[2] + 0.1);
    taps.values[0] = taps.values[1] = Math.min(top, 1);
    taps.values[2] = Math.min(taps.values[2], 0.9);
  });

  function drawBars(result) {
    bars.clear();
    const at = taps.draw({ height: 240, right: 66, look: (i) => (result.weights[i] ? "fill: var(--op-max)" : "") });
    const y = at.y(result.value);
    const right = bars.width - 66;
    bars.line(38, y, right, y, "guide");
    bars.text(right + 6, y + 4, `y = ${num(result.value)}`, "start", "strong");
    result.derivatives.forEach((d, i) => {
      if (d) bars.arrow(at.x(i), 258, at.x(i), 226, "arrow", "stroke: var(--op-max); fill: var(--op-max)");
      bars.text(at.x(i) + (d ? 14 : 0), d ? 248 : 240, num(d, 0), "middle", d ? "strong" : "faint");
    });
    bars.text(right + 6, 240, "gradient", "start", "faint");
  }

  function drawKink(value, rest) {
    kink.clear();
    const x = scale(0, 1, 34, kink.width - 10);
    const y = scale(0, 1, 200, 26);
    kink.axes(x, y, { xTicks: [0, 1], yTicks: [0, 1], xTitle: "x₁", yTitle: "y" });
    kink.curve([[x(0), y(rest)], [x(rest), y(rest)], [x(1), y(1)]], "curve", "stroke: var(--op-max)");
    kink.dot(x(taps.values[0]), y(value), 4.5, "ink");
    const slope = taps.values[0] > rest ? "slope 1" : taps.values[0] < rest ? "slope 0" : "slopes 0 to 1";
    kink.text(kink.width - 14, 222 - 40, slope, "end", "strong");
  }

  function drawSegment(tie, result) {
    segment.clear();
    const x = scale(0, 1, 34, segment.width - 24);
    const y = scale(0, 1, 200, 36);
    segment.axes(x, y, { xTicks: [0, 1], yTicks: [0, 1], xTitle: "∂y/∂x₁", yTitle: "∂y/∂x₂" });
    segment.line(x(1), y(0), x(0), y(1), tie ? "curve" : "guide", tie ? "stroke: var(--op-max); stroke-width: 5" : "");
    segment.dot(x(result.derivatives[0]), y(result.derivatives[1]), 6, "ink");
    if (tie) segment.text(x(0.5) + 8, y(0.5) - 6, "all of these", "start", "strong");
  }

  stage.draw(() => {
    const x = taps.values;
    const result = formulas.max(x);
    const winners = [0, 1, 2].filter((i) => x[i] === result.value);
    drawBars(result);
    drawKink(result.value, Math.max(x[1], x[2]));
    drawSegment(winners[0] === 0 && winners[1] === 1, result);
    const gradient = `(${result.derivatives.map((d) => num(d, 0)).join(", ")})`;
    const names = winners.map((i) => `x<sub>${i + 1}</sub>`).join(" = ");
    stage.say(
      `y = max(${x.map((v) => num(v)).join(", ")}) = <b>${num(result.value)}</b> = ${names}`,
      winners.length > 1
        ? `A tie: each gradient that shares 1 among ${names} is a subgradient. The first of them gets all: <b>${gradient}</b>`
        : `The derivative with respect to the three taps is <b>${gradient}</b>`,
    );
  });
});
