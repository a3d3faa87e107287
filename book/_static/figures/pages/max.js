// Max pooling: the gradient's arrow jumps at a tie; the kink; the segment of subgradients.
"use strict";

poolnb.figure("max", "max", (stage) => {
  const { num, formulas } = poolnb;
  const bars = stage.panel("Three taps as bars; an arrow shows where the gradient goes", 230, 270);
  const taps = stage.taps(bars, [0.7, 0.5, 0.3]);
  const kink = stage.panel("The output as a function of the first tap", 180, 240);
  const segment = stage.panel("The derivatives with respect to the first two taps, as a point in the plane", 180, 240);
  stage.button("Make a tie of taps 1 and 2", () => {
    const [a, b, c] = taps.values;
    const top = Math.min(Math.max(a, b, c + 0.1), 1);
    taps.values = [top, top, Math.min(c, 0.9)];
  });

  function drawBars({ value, weights, derivatives }) {
    const look = (i) => (weights[i] ? ["own"] : ["bar"]);
    const plot = taps.draw({ right: 66, bottom: 200, look });
    plot.level(value, "guide", `y = ${num(value)}`);
    derivatives.forEach((d, i) => {
      if (d) {
        bars.line(plot.at(i), 258, plot.at(i), 232, "curve own");
        bars.add("polygon", { points: `${plot.at(i)},225 ${plot.at(i) - 5},234 ${plot.at(i) + 5},234` }, "own");
      }
      bars.text(plot.at(i) + (d ? 14 : 0), d ? 248 : 240, num(d, 0), "middle", d ? "strong" : "faint");
    });
    bars.text(plot.right + 6, 240, "gradient", "start", "faint");
  }

  function drawKink(first, rest) {
    const plot = kink.plot({ left: 34, xTicks: [0, 1], yTicks: [0, 1], xTitle: "x₁", yTitle: "y" });
    plot.curve([[0, rest], [rest, rest], [1, 1]]);
    plot.dot(first, Math.max(first, rest));
    const slope = first > rest ? "slope 1" : first < rest ? "slope 0" : "slopes 0 to 1";
    kink.text(plot.right - 4, plot.bottom - 18, slope, "end", "strong");
  }

  function drawSegment(tie, [first, second]) {
    const plot = segment.plot({ left: 34, right: 24, xTicks: [0, 1], yTicks: [0, 1], xTitle: "∂y/∂x₁", yTitle: "∂y/∂x₂" });
    plot.curve([[1, 0], [0, 1]], tie ? "curve own" : "guide", tie ? "stroke-width: 5" : "");
    plot.dot(first, second);
    if (tie) segment.text(plot.x(0.5) + 8, plot.y(0.5) - 6, "all of these", "start", "strong");
  }

  stage.draw(() => {
    const x = taps.values;
    const result = formulas.max(x);
    const winners = [0, 1, 2].filter((i) => x[i] === result.value);
    drawBars(result);
    drawKink(x[0], Math.max(x[1], x[2]));
    drawSegment(winners[0] === 0 && winners[1] === 1, result.derivatives);
    const gradient = `<b>(${result.derivatives.join(", ")})</b>`;
    const names = winners.map((i) => `x<sub>${i + 1}</sub>`).join(" = ");
    stage.say(
      `y = max(${x.map((v) => num(v)).join(", ")}) = <b>${num(result.value)}</b> = ${names}`,
      winners.length > 1
        ? `A tie: each gradient that shares 1 among ${names} is a subgradient. The first of them gets all: ${gradient}`
        : `The derivative with respect to the three taps is ${gradient}`,
    );
  });
});
