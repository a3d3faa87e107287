// Windows along one axis, and what PyTorch refuses.
"use strict";

poolnb.figure("windows", (stage) => {
  const { num, formulas, SUBSCRIPTS } = poolnb;
  const panel = stage.panel({ label: "The input as a row of cells, and the taps of every window below it", height: 200, width: 600 });
  const whole = (label, min, max, value) => stage.slider({ label, min, max, step: 1, value, says: (v) => num(v, 0) });
  const length = whole("length L", 1, 12, 10);
  const kernel = whole("kernel k", 1, 5, 3);
  const stride = whole("stride s", 1, 5, 2);
  const padding = whole("padding p", 0, 3, 0);
  const dilation = whole("dilation d", 1, 4, 1);
  const ceilMode = stage.toggle({ label: "ceil_mode" });

  const subscript = (n) => String(n).split("").map((digit) => SUBSCRIPTS[digit]).join("");

  function drawing({ windows }, [L, p]) {
    const last = Math.max(L - 1, ...(windows ?? []).flat());
    const first = Math.min(0, -p, ...(windows ?? []).flat());
    const rows = windows?.length ?? 0;
    panel.clear(48 + 27 * Math.max(rows, 1) + 8);
    const side = Math.min(40, (panel.width - 44) / (last - first + 1));
    const x = (position) => 40 + (position - first) * side;
    const taken = new Set((windows ?? []).flat());
    for (let position = first; position <= last; position += 1) {
      const inside = position >= 0 && position < L;
      panel.rect(x(position) + 1, 8, side - 2, 26, inside ? "cell" : "empty", inside && !taken.has(position) ? "opacity: 0.4" : "");
      if (inside) panel.text(x(position) + side / 2, 26, position, "middle");
    }
    panel.text(4, 26, "x");
    (windows ?? []).forEach((taps, output) => {
      const y = 48 + 27 * output;
      panel.text(4, y + 14, `y${subscript(output)}`);
      panel.line(x(taps[0]) + side / 2, y + 9, x(taps.at(-1)) + side / 2, y + 9, "axis", "stroke: var(--op-avg)");
      for (const tap of taps) {
        const valid = tap >= 0 && tap < L;
        const size = Math.min(18, side - 4);
        const look = valid ? "fill: var(--op-avg)" : "fill: var(--pst-color-background); stroke: var(--op-avg); stroke-dasharray: 3 2";
        panel.rect(x(tap) + side / 2 - size / 2, y + 9 - size / 2, size, size, "", look);
      }
    });
    if (!rows) panel.text(40, 66, "no window", "start", "faint");
  }

  stage.draw(() => {
    const [L, k, s, p, d] = [length, kernel, stride, padding, dilation].map((control) => control.value);
    const found = formulas.windows({ length: L, kernel: k, stride: s, padding: p, dilation: d, ceilMode: ceilMode.value });
    drawing(found, [L, p]);
    const [open, close] = ceilMode.value ? ["⌈", "⌉"] : ["⌊", "⌋"];
    const room = `${L} + 2·${p} − ${d}·(${k} − 1) − 1`;
    const rounded = L + 2 * p - d * (k - 1) - 1;
    const plain = (ceilMode.value ? Math.ceil(rounded / s) : Math.floor(rounded / s)) + 1;
    const call = `max_pool1d(x, ${k}, stride=${s}, padding=${p}, dilation=${d}, ceil_mode=${ceilMode.value ? "True" : "False"})`;
    const size = `outputs: ${open}(${room}) / ${s}${close} + 1 = <b>${num(plain, 0)}</b>`;
    if (found.error) stage.say(size, `PyTorch refuses: <span class="error">${found.error}</span>`);
    else {
      const dropped = found.size < plain ? `, less one that would start past the end: <b>${found.size}</b>` : "";
      const unused = Array.from({ length: L }, (_, i) => i).filter((i) => !found.windows.flat().includes(i));
      stage.say(size + dropped, unused.length ? `In no window: ${unused.join(", ")}` : "Every position is in a window", `<code>${call}</code>`);
    }
  });
});
