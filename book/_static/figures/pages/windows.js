// Windows along one axis, and what PyTorch refuses.
"use strict";

poolnb.figure("windows", "avg", (stage) => {
  const { num, range, formulas, SUBSCRIPTS } = poolnb;
  const panel = stage.panel("The input as a row of cells, and the taps of every window below it", 600, 200);
  const length = stage.slider("length L", 1, 12, 10);
  const kernel = stage.slider("kernel k", 1, 5, 3);
  const stride = stage.slider("stride s", 1, 5, 2);
  const padding = stage.slider("padding p", 0, 3, 0);
  const dilation = stage.slider("dilation d", 1, 4, 1);
  const ceilMode = stage.toggle("ceil_mode");

  const subscript = (n) => String(n).replace(/\d/g, (digit) => SUBSCRIPTS[digit]);

  function drawing(windows, taken, L, p) {
    const [first, last] = [Math.min(-p, ...taken), Math.max(windows.length ? L - 1 : L - 1 + p, ...taken)];
    panel.clear(56 + 27 * Math.max(windows.length, 1));
    const side = Math.min(40, (panel.width - 44) / (last - first + 1));
    const center = (position) => 40 + (position - first + 0.5) * side;
    const inside = (position) => position >= 0 && position < L;
    panel.text(4, 26, "x");
    for (let position = first; position <= last; position += 1) {
      const faint = inside(position) && !taken.includes(position);
      panel.rect(center(position) - side / 2 + 1, 8, side - 2, 26, inside(position) ? "cell" : "empty", faint ? "opacity: 0.4" : "");
      if (inside(position)) panel.text(center(position), 26, position, "middle");
    }
    windows.forEach((taps, output) => {
      const y = 57 + 27 * output;
      panel.text(4, y + 5, `y${subscript(output)}`);
      panel.line(center(taps[0]), y, center(taps.at(-1)), y, "axis own");
      const size = Math.min(18, side - 4);
      for (const tap of taps) panel.rect(center(tap) - size / 2, y - size / 2, size, size, inside(tap) ? "own" : "hollow");
    });
    if (!windows.length) panel.text(40, 66, "no window", "start", "faint");
  }

  stage.draw(() => {
    const [L, k, s, p, d] = [length, kernel, stride, padding, dilation].map((control) => control.value);
    const found = formulas.windows({ length: L, kernel: k, stride: s, padding: p, dilation: d, ceilMode: ceilMode.value });
    const taken = (found.windows ?? []).flat();
    drawing(found.windows ?? [], taken, L, p);
    const [open, close, round] = ceilMode.value ? ["⌈", "⌉", Math.ceil] : ["⌊", "⌋", Math.floor];
    const plain = round((L + 2 * p - d * (k - 1) - 1) / s) + 1;
    const size = `outputs: ${open}(${L} + 2·${p} − ${d}·(${k} − 1) − 1) / ${s}${close} + 1 = <b>${num(plain, 0)}</b>`;
    if (found.error) return stage.say(`PyTorch refuses: <span class="error">${found.error}</span>`);
    const dropped = found.size < plain ? `, minus one that would start past the end: <b>${found.size}</b>` : "";
    const unused = range(L).filter((i) => !taken.includes(i));
    stage.say(
      size + dropped,
      unused.length ? `In no window: ${unused.join(", ")}` : "Every position is in a window",
      `<code>max_pool1d(x, ${k}, stride=${s}, padding=${p}, dilation=${d}, ceil_mode=${ceilMode.value ? "True" : "False"})</code>`,
    );
  });
});
