// Measures exp and log of ext/vec_math.h against the C library: floats in steps over their whole range against double,
// doubles at random against long double. Prints "name type error": the largest error in units of the last place.
#include <cmath>
#include <cstdio>
#include <random>

#include "../../ext/vec_math.h"

using namespace poolnb;

namespace {

// In units of the last place of the exact result; NaN, infinities and 0 must be met.
template <class T, class Exact>
double error(T got, Exact exact) {
  const T rounded = T(exact);
  if (rounded != rounded) return got != got ? 0 : INFINITY;
  if (std::isinf(rounded) || std::isinf(got)) {
    // Within the last place of the largest number the rounding may differ.
    return got == rounded ? 0 : std::fabs(exact / std::numeric_limits<T>::max() - 1) < 1e-6 ? 1 : INFINITY;
  }
  if (std::fabs(exact) < std::numeric_limits<T>::min()) return got == 0 || got == rounded ? 0 : 1;
  int exponent;
  std::frexp(rounded, &exponent);
  return double(std::fabs(Exact(got) - exact) / std::ldexp(Exact(1), exponent - std::numeric_limits<T>::digits));
}

template <class V, class Values, class Function, class Reference>
void measure(const char* name, const Values& values, const Function& function, const Reference& reference) {
  using T = typename Traits<V>::Number;
  constexpr int lanes = Traits<V>::lanes;
  double worst = 0;
  T vector[lanes], result[lanes];
  int held = 0;
  const auto flush = [&] {
    for (int i = held; i < lanes; ++i) vector[i] = vector[0];
    store<V>(result, function(load<V>(vector)));
    for (int i = 0; i < held; ++i) worst = std::fmax(worst, error(result[i], reference(vector[i])));
    held = 0;
  };
  values([&](T x) {
    vector[held++] = x;
    if (held == lanes) flush();
  });
  if (held) flush();
  std::printf("%s %s %.4f\n", name, sizeof(T) == 4 ? "float" : "double", worst);
}

// Every 61st float: infinities, NaNs and subnormal numbers are among them.
template <class Wanted, class Use>
void floats(const Wanted& wanted, const Use& use) {
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32); bits += 61) {
    const uint32_t word = uint32_t(bits);
    float x;
    std::memcpy(&x, &word, 4);
    if (wanted(x)) use(x);
  }
  for (float x : {0.0f, -0.0f, 1.0f, INFINITY, -INFINITY, NAN})
    if (wanted(x)) use(x);
}

// Uniform in the exponent, of both signs.
template <class Wanted, class Use>
void doubles(double low, double high, const Wanted& wanted, const Use& use) {
  std::mt19937_64 generator(1);
  std::uniform_real_distribution<double> exponent(low, high);
  for (int i = 0; i < 1000000; ++i) {
    const double size = std::exp2(exponent(generator)), x = i % 2 ? size : -size;
    if (wanted(x)) use(x);
  }
  for (double x : {0.0, -0.0, 1.0, double(INFINITY), -double(INFINITY), double(NAN)})
    if (wanted(x)) use(x);
}

template <class V, class Function, class Reference, class Wanted>
void both(const char* name, const Function& function, const Reference& reference, const Wanted& wanted) {
  if constexpr (std::is_same_v<V, VecF>)
    measure<V>(name, [&](const auto& use) { floats(wanted, use); }, function, reference);
  else
    measure<V>(name, [&](const auto& use) { doubles(-60, 11, wanted, use); }, function, reference);
}

template <class V>
void all() {
  using T = typename Traits<V>::Number;
  using Wide = std::conditional_t<sizeof(T) == 4, double, long double>;
  const T limit = sizeof(T) == 4 ? T(87) : T(708);
  const auto exact_exp = [](T x) { return std::exp(Wide(x)); };
  const auto exact_log = [](T x) { return std::log(Wide(x)); };
  const auto normal = [](T x) { return !(std::fabs(x) > 0 && std::fabs(x) < std::numeric_limits<T>::min()); };
  both<V>("exp", [](V x) { return vexp(x); }, exact_exp, [](T) { return true; });
  both<V>("exp_down", [](V x) { return vexp_down(x); }, exact_exp, [](T x) { return x <= 0 && x == x; });
  both<V>("expm1", [](V x) { return vexpm1(x); }, [](T x) { return std::expm1(Wide(x)); },
          [&](T x) { return normal(x) && x < limit; });
  both<V>("log", [](V x) { return vlog(x); }, exact_log, normal);
  both<V>("log_normal", [](V x) { return vlog_normal(x); }, exact_log,
          [&](T x) { return normal(x) && x > 0 && x < std::numeric_limits<T>::infinity(); });
  both<V>("log1p", [](V x) { return vlog1p(x); }, [](T x) { return std::log1p(Wide(x)); },
          [&](T x) { return normal(x) && x > T(-0.999) && x < std::numeric_limits<T>::infinity(); });
  const T most = std::numeric_limits<T>::max_exponent - 1, least = std::numeric_limits<T>::min_exponent - 1;
  const auto exact_exp2 = [](T x) { return std::exp2(Wide(x)); };
  const auto in_range = [&](T x) { return normal(x) && x >= least && x <= most; };
  both<V>("exp2", [](V x) { return vexp2(x); }, exact_exp2, in_range);
  both<V>("exp2_of_a_sum", [](V x) { return vexp2(x, splat<V>(T(0.7))); },
          [](T x) { return std::exp2(Wide(x) + Wide(T(0.7))); }, [&](T x) { return in_range(x) && x < most - 1; });
  // Around log2 = 0 the bound is that of 1: so 1 is added.
  const auto exact_log2 = [](T x) {
    const Wide l = std::log2(Wide(x));
    return l + (l < 0 ? -1 : 1);
  };
  const auto away_from_1 = [](V x) {
    const auto l = vlog2(x);
    const V y = l.whole + l.part;
    return y + select(y < splat<V>(0), splat<V>(-1), splat<V>(1));
  };
  both<V>("log2", away_from_1, exact_log2,
          [&](T x) { return normal(x) && x > 0 && x < std::numeric_limits<T>::infinity(); });
  const auto inner = [](T x) {
    const T a = std::fabs(x);
    return a > 4 * std::numeric_limits<T>::min() && a < std::numeric_limits<T>::max() / 8;
  };
  both<V>("reciprocal", [](V x) { return quick_reciprocal(x); }, [](T x) { return 1 / Wide(x); }, inner);
  both<V>("rsqrt", [](V x) { return quick_rsqrt(x); }, [](T x) { return 1 / std::sqrt(Wide(x)); },
          [&](T x) { return inner(x) && x > 0; });
}

}  // namespace

int main() {
  all<VecF>();
  all<VecD>();
}
