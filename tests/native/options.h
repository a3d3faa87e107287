// Gives an operator's options their values, one after the other in the schema's order.
#pragma once

#include "../../ext/geometry.h"

template <class Op, class Next>
void set_options(poolnb::Options& options, const Next& next);
#define POOLNB_OPERATOR(Op, name, parts)                                    \
  template <class Asked, class Next>                                        \
    requires std::is_same_v<Asked, poolnb::Op>                              \
  void set_options([[maybe_unused]] poolnb::Options& options, const Next& next) { \
    [[maybe_unused]] auto& own = options.name;                              \
    parts                                                                   \
  }
#define NUMBER(option) own.option = next();
#define FLAG(option) own.option = next() != 0;
#include "../../ext/operators.def"
