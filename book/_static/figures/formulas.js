// What the figures compute: one function per operator, and the windows, noise and statistics around them.
//
// An operator takes the valid taps of one window, an array, and its own parameters, and gives {value, weights,
// derivatives}: the output, how much each tap counts (these sum to 1), and dy/dx of each tap. It may add the derivative
// with respect to its parameter, `pull`. tests/site compares them with poolnb.reference.
"use strict";

(() => { // the whole file

const range = (count, make = (i) => i) => Array.from({ length: count }, (_, i) => make(i));
const sum = (values) => values.reduce((total, v) => total + v, 0);
const mean = (values) => sum(values) / values.length;
const dot = (a, b) => sum(a.map((v, i) => v * b[i]));
const indexOfLargest = (x) => x.indexOf(Math.max(...x));
const oneHot = (n, place) => range(n, (i) => Number(i === place));

function softmax(logits) {
  const largest = Math.max(...logits);
  const exps = logits.map((l) => Math.exp(l - largest));
  return exps.map((e) => e / sum(exps));
}

// ---- operators of one window ----

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

// The p-norm of some sizes, and the share that each has of the sum of their p-th powers.
function norm(sizes, p) {
  const largest = Math.max(...sizes);
  const powers = sizes.map((v) => (v / largest) ** p);
  const total = sum(powers);
  return { length: largest * total ** (1 / p), shares: powers.map((v) => v / total) };
}

function gem(x, p, eps = 1e-6) {
  const sizes = x.map((v) => Math.max(v, eps));
  const { length, shares } = norm(sizes, p);
  const value = length / x.length ** (1 / p);
  const derivatives = sizes.map((v, i) => (x[i] < eps ? 0 : (v / value) ** (p - 1) / x.length));
  return { value, weights: shares, derivatives };
}

function lp(x, p) {
  const sizes = x.map(Math.abs);
  if (sum(sizes) === 0) return { ...avg(x), derivatives: x.map(() => 0) };
  const { length: value, shares } = norm(sizes, p);
  const derivatives = x.map((v, i) => (v === 0 ? 0 : Math.sign(v) * (sizes[i] / value) ** (p - 1)));
  return { value, weights: shares, derivatives };
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

// ---- windows ----

// The positions in each window along one axis, {size, windows}, or {error} with the words of PyTorch's max_pool1d.
function windows({ length, kernel, stride, padding, dilation, ceilMode }) {
  if (2 * padding > kernel) {
    const got = `padding=${padding} and kernel_size=${kernel}`;
    return { error: `max_pool1d() padding should be at most half of kernel size, but got ${got}` };
  }
  const room = length + 2 * padding - dilation * (kernel - 1) - 1;
  let size = (ceilMode ? Math.ceil : Math.floor)(room / stride) + 1;
  if (ceilMode && (size - 1) * stride >= length + padding) size -= 1;
  if (size < 1) return { error: `max_pool1d() Invalid computed output size: ${size}` };
  const taps = (output) => range(kernel, (t) => output * stride - padding + t * dilation);
  return { size, windows: range(size, taps) };
}

// ---- draws ----

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

// A row, cut into pieces.
const pieces = (row, length) => range(Math.ceil(row.length / length), (i) => row.slice(i * length, (i + 1) * length));

// Which entries of a row S3Pool keeps: `grid / stride` of each strip of `grid`, in order.
function s3Kept(length, stride, grid, uniform) {
  return pieces(range(length), grid).flatMap((strip) => {
    const shuffled = strip.map((place) => [uniform(), place]).sort(([a], [b]) => a - b).map(([, place]) => place);
    return shuffled.slice(0, Math.ceil(strip.length / stride)).sort((a, b) => a - b);
  });
}

// The maximum over `kernel` entries that start at each entry; windows shrink at the end.
const maxMap = (row, kernel) => row.map((_, i) => Math.max(...row.slice(i, i + kernel)));

// How S3Pool's authors evaluate: the mean over each cell of the stride.
const s3Average = (map, stride) => pieces(map, stride).map(mean);

// The mean of S3Pool's draws. The i-th of m entries kept out of n is r with chance C(r, i) C(n-1-r, m-1-i) / C(n, m).
function s3Expectation(map, stride, grid) {
  return pieces(map, grid).flatMap((strip) => {
    const [n, m] = [strip.length, Math.ceil(strip.length / stride)];
    const chance = (i, r) => (choose(r, i) * choose(n - 1 - r, m - 1 - i)) / choose(n, m);
    return range(m, (i) => dot(strip, range(n, (r) => chance(i, r))));
  });
}

function choose(n, k) {
  let product = k > n ? 0 : 1;
  for (let i = 1; i <= k && product; i += 1) product = (product * (n - k + i)) / i;
  return product;
}

// ---- statistics ----

// The standard normal distribution, by its series. Beyond 8 there is nothing left of it.
function normal(z) {
  if (Math.abs(z) > 8) return Number(z > 0);
  let [term, total] = [z, z];
  for (let k = 3; Math.abs(term) > 1e-16; k += 2) total += term *= (z * z) / k;
  return 0.5 + (total * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI);
}

// P(T <= x) for Student's t with noncentrality `shift`: the mean of normal(x s - shift) over s, the scatter of a
// sample in units of the true one, whose density is known but for a factor (Simpson's rule, sixteen deviations wide).
function studentT(x, freedom, shift = 0) {
  const spread = 1 / Math.sqrt(2 * freedom);
  const low = Math.max(0, 1 - 8 * spread);
  const parts = 400;
  let [total, mass] = [0, 0];
  for (let i = 0; i <= parts; i += 1) {
    const s = low + ((1 + 8 * spread - low) * i) / parts;
    const simpson = i === 0 || i === parts ? 1 : i % 2 ? 4 : 2;
    const density = simpson * s ** (freedom - 1) * Math.exp((freedom * (1 - s * s)) / 2);
    mass += density;
    total += density * normal(x * s - shift);
  }
  return total / mass;
}

// The t beyond which `alpha` of the distribution lies, half on each side. A curve asks the same again and again.
const criticals = {};

function criticalT(alpha, freedom) {
  const below = (_, t) => ({ value: studentT(t, freedom) });
  return (criticals[`${alpha} ${freedom}`] ??= solve(below, [], 1 - alpha / 2, 0, 1000));
}

// How often `n` pairs, whose differences scatter by one unit, tell a true difference `effect` from none. How large the
// unit is was found with `freedom`, which are more than the pairs give where other poolers tell of it too.
function power(effect, n, alpha, freedom = n - 1) {
  const [critical, shift] = [criticalT(alpha, freedom), effect * Math.sqrt(n)];
  return 1 - studentT(critical, freedom, shift) + studentT(-critical, freedom, shift);
}

const formulas = {
  mean, avg, max, mixed, soft, lse, gem, lp, stochastic, tdgs, solve, windows, uniforms, gumbel, drawTap, pieces, maxMap,
  s3Kept, s3Average, s3Expectation, criticalT, power,
};
window.poolnb = { ...window.poolnb, range, formulas };

})();
