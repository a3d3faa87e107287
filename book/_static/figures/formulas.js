// What the figures compute: one function per operator, and the windows, noise and statistics around them.
//
// An operator takes the valid taps of one window, an array, and its own parameters, and gives {value, weights,
// derivatives}: the output, how much each tap counts (these sum to 1), and dy/dx of each tap. It may add the derivative
// with respect to its parameter, `pull`. tests/site compares them with poolnb.reference.
"use strict";

(() => {
  const sum = (values) => values.reduce((total, v) => total + v, 0);
  const mean = (values) => sum(values) / values.length;
  const dot = (a, b) => sum(a.map((v, i) => v * b[i]));
  const indexOfLargest = (x) => x.indexOf(Math.max(...x));
  const oneHot = (n, place) => Array.from({ length: n }, (_, i) => Number(i === place));

  function softmax(logits) {
    const largest = Math.max(...logits);
    const exps = logits.map((l) => Math.exp(l - largest));
    return exps.map((e) => e / sum(exps));
  }

  // ---- operators of one window --------------------------------------------------------------------------------------

  function avg(x) {
    const equal = x.map(() => 1 / x.length);
    return { value: mean(x), weights: equal, derivatives: equal };
  }

  function max(x) {
    const first = oneHot(x.length, indexOfLargest(x));
    return { value: Math.max(...x), weights: first, derivatives: first };
  }

  function mixed(x, alpha) {
    const weights = max(x).weights.map((w) => alpha * w + (1 - alpha) / x.length);
    return { value: dot(weights, x), weights, derivatives: weights, pull: Math.max(...x) - mean(x) };
  }

  function soft(x, beta) {
    const weights = softmax(x.map((v) => beta * v));
    const value = dot(weights, x);
    const derivatives = weights.map((w, i) => w * (1 + beta * (x[i] - value)));
    return { value, weights, derivatives, pull: dot(weights, x.map((v) => (v - value) ** 2)) };
  }

  function lse(x, r) {
    const weights = softmax(x.map((v) => r * v));
    const favoured = r > 0 ? Math.max(...x) : Math.min(...x);
    const value = r === 0 ? mean(x) : favoured + Math.log1p(mean(x.map((v) => Math.expm1(r * (v - favoured))))) / r;
    return { value, weights, derivatives: weights };
  }

  function gem(x, p, eps = 1e-6) {
    const sizes = x.map((v) => Math.max(v, eps));
    const largest = Math.max(...sizes);
    const powers = sizes.map((v) => (v / largest) ** p);
    const value = largest * mean(powers) ** (1 / p);
    const derivatives = sizes.map((v, i) => (x[i] < eps ? 0 : (v / value) ** (p - 1) / x.length));
    return { value, weights: powers.map((v) => v / sum(powers)), derivatives };
  }

  function lp(x, p) {
    const sizes = x.map(Math.abs);
    const largest = Math.max(...sizes);
    if (largest === 0) return { value: 0, weights: avg(x).weights, derivatives: x.map(() => 0) };
    const powers = sizes.map((v) => (v / largest) ** p);
    const value = largest * sum(powers) ** (1 / p);
    const derivatives = x.map((v, i) => (v === 0 ? 0 : Math.sign(v) * (sizes[i] / value) ** (p - 1)));
    return { value, weights: powers.map((v) => v / sum(powers)), derivatives };
  }

  function stochastic(x) {
    const a = x.map((v) => Math.max(v, 0));
    const total = sum(a);
    if (total === 0) return avg(x);
    const weights = a.map((v) => v / total);
    const purity = dot(weights, weights);
    return { value: dot(weights, x), weights, derivatives: weights.map((w) => (w > 0 ? 2 * w - purity : 0)) };
  }

  // Evaluation; with `noise`, one Gumbel number per tap, training: `weights` is then what is kept of each tap.
  function tdgs(x, { temperature, tau = 1, hard = true, normalize = true, eps = 0.01, noise = null }) {
    const norm = normalize ? Math.hypot(...x) || 1 : 1;
    const z = x.map((v) => v / norm);
    const t = Math.max(temperature, 0) + eps;
    const sharpness = noise ? tau : 1;
    const scores = z.map((v, i) => (v / t + (noise ? noise[i] : 0)) / sharpness);
    const q = softmax(scores);
    const weights = noise && hard ? oneHot(x.length, indexOfLargest(scores)) : q;
    const expected = dot(q, x);
    const c = q.map((w, i) => w * (x[i] - expected));
    const turned = normalize ? c.map((v, i) => (v - z[i] * dot(c, z)) / norm) : c;
    const derivatives = weights.map((w, i) => w + turned[i] / (sharpness * t));
    const pull = temperature > 0 ? -dot(c, z) / (sharpness * t * t) : 0;
    return { value: dot(weights, x), weights, derivatives, pull };
  }

  // The parameter at which `operator(x, parameter)` gives `target`, by bisection. The value must rise with it.
  function solve(operator, x, target, low, high) {
    for (let step = 0; step < 60; step += 1) {
      const middle = (low + high) / 2;
      if (operator(x, middle).value < target) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  }

  // ---- windows ------------------------------------------------------------------------------------------------------

  // The positions in each window along one axis, {size, windows}, or {error} with the words of PyTorch's max_pool1d.
  function windows({ length, kernel, stride, padding, dilation, ceilMode }) {
    if (2 * padding > kernel) {
      const got = `padding=${padding} and kernel_size=${kernel}`;
      return { error: `max_pool1d() padding should be at most half of kernel size, but got ${got}` };
    }
    const room = length + 2 * padding - dilation * (kernel - 1) - 1;
    let size = (ceilMode ? Math.ceil(room / stride) : Math.floor(room / stride)) + 1;
    if (ceilMode && (size - 1) * stride >= length + padding) size -= 1;
    if (size < 1) return { error: `max_pool1d() Invalid computed output size: ${size}` };
    const taps = (output) => Array.from({ length: kernel }, (_, t) => output * stride - padding + t * dilation);
    return { size, windows: Array.from({ length: size }, (_, output) => taps(output)) };
  }

  // ---- draws --------------------------------------------------------------------------------------------------------

  // Numbers in (0, 1) that are the same for the same seed (mulberry32).
  function uniforms(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = state;
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
  }

  const gumbel = (uniform) => -Math.log(-Math.log(uniform()));

  function drawTap(weights, uniform) {
    let left = uniform() * sum(weights);
    return Math.max(0, weights.findIndex((w) => (left -= w) < 0));
  }

  // Which entries of a row S3Pool keeps: `grid / stride` of each strip of `grid`, in order.
  function s3Kept(length, stride, grid, uniform) {
    const kept = [];
    for (let first = 0; first < length; first += grid) {
      const strip = Array.from({ length: Math.min(grid, length - first) }, (_, i) => first + i);
      const noise = strip.map(() => uniform());
      const order = strip.map((_, i) => i).sort((a, b) => noise[a] - noise[b]).slice(0, Math.ceil(strip.length / stride));
      kept.push(...order.sort((a, b) => a - b).map((i) => strip[i]));
    }
    return kept;
  }

  // The maximum over `kernel` entries that start at each entry; windows shrink at the end.
  const maxMap = (row, kernel) => row.map((_, i) => Math.max(...row.slice(i, i + kernel)));

  // How S3Pool's authors evaluate: the mean over each cell of the stride.
  function s3Average(map, stride) {
    const starts = map.map((_, i) => i).filter((i) => i % stride === 0);
    return starts.map((i) => mean(map.slice(i, i + stride)));
  }

  // The mean of S3Pool's draws. The i-th of m entries kept out of n is r with chance C(r, i) C(n-1-r, m-1-i) / C(n, m).
  function s3Expectation(map, stride, grid) {
    const made = [];
    for (let first = 0; first < map.length; first += grid) {
      const strip = map.slice(first, first + grid);
      const [n, m] = [strip.length, Math.ceil(strip.length / stride)];
      for (let i = 0; i < m; i += 1) {
        made.push(dot(strip, strip.map((_, r) => (choose(r, i) * choose(n - 1 - r, m - 1 - i)) / choose(n, m))));
      }
    }
    return made;
  }

  function choose(n, k) {
    let product = k > n ? 0 : 1;
    for (let i = 1; i <= k && product; i += 1) product = (product * (n - k + i)) / i;
    return product;
  }

  // ---- statistics ---------------------------------------------------------------------------------------------------

  function logGamma(x) {
    const c = [676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905,
      -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];
    if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
    const t = x + 6.5;
    const series = c.reduce((total, v, i) => total + v / (x + i), 0.99999999999980993);
    return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(series);
  }

  // The standard normal distribution: its tail by a continued fraction, its middle by a series.
  function normal(z) {
    const size = Math.abs(z);
    const density = Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
    if (size > 3) {
      let fraction = 0;
      for (let k = 60; k > 0; k -= 1) fraction = k / (size + fraction);
      const tail = density / (size + fraction);
      return z > 0 ? 1 - tail : tail;
    }
    let term = z;
    let total = z;
    for (let k = 3; Math.abs(term) > 1e-16; k += 2) total += term *= (z * z) / k;
    return 0.5 + density * total;
  }

  // P(T <= x) for Student's t with noncentrality `shift`: the mean of normal(x s - shift) over s, the scatter of a
  // sample in units of the true one, whose density is known (Simpson's rule over twelve of its standard deviations).
  function studentT(x, freedom, shift = 0) {
    const constant = Math.log(2) + (freedom / 2) * Math.log(freedom / 2) - logGamma(freedom / 2);
    const density = (s) => Math.exp(constant + (freedom - 1) * Math.log(s) - (freedom * s * s) / 2);
    const spread = 1 / Math.sqrt(2 * freedom);
    const low = Math.max(1e-9, 1 - 8 * spread);
    const width = 1 + 8 * spread - low;
    const parts = 400;
    let total = 0;
    for (let i = 0; i <= parts; i += 1) {
      const s = low + (width * i) / parts;
      total += (i === 0 || i === parts ? 1 : i % 2 ? 4 : 2) * density(s) * normal(x * s - shift);
    }
    return (total * width) / (3 * parts);
  }

  // The t beyond which `alpha` of the distribution lies, half on each side. A curve asks the same again and again.
  const criticals = new Map();

  function criticalT(alpha, freedom) {
    const key = `${alpha} ${freedom}`;
    if (!criticals.has(key)) {
      const below = (_, t) => ({ value: studentT(t, freedom) });
      criticals.set(key, solve(below, [], 1 - alpha / 2, 0, 1000));
    }
    return criticals.get(key);
  }

  // How often `n` pairs, whose differences scatter by one unit, tell a true difference `effect` from none.
  function power(effect, n, alpha) {
    const [critical, shift] = [criticalT(alpha, n - 1), effect * Math.sqrt(n)];
    return 1 - studentT(critical, n - 1, shift) + studentT(-critical, n - 1, shift);
  }

  window.poolnb = window.poolnb || {};
  window.poolnb.formulas = {
    sum, mean, dot, softmax, avg, max, mixed, soft, lse, gem, lp, stochastic, tdgs, solve, windows, uniforms, gumbel,
    drawTap, maxMap, s3Kept, s3Average, s3Expectation, criticalT, power,
  };
})();
