// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include <batchnorm/plan/tuning.hpp>

// Tunings that reach with small tensors what otherwise only large ones reach. They change the time, never a bit of the result.
namespace support {

using batchnorm::Tuning;

/// Work is split however small the tensor, so that small tensors reach every split.
inline Tuning split_always() {
  Tuning tuning;
  tuning.serial_bytes = 256;
  tuning.sweep_task_bytes = 4096;
  tuning.plane_group_bytes = 16384;
  tuning.column_group_bytes = 16384;
  return tuning;
}

struct NamedTuning {
  const char* name;
  Tuning tuning;
};

inline std::vector<NamedTuning> tunings() {
  std::vector<NamedTuning> all;
  const auto add = [&](const char* name, auto&& change) {
    Tuning tuning;
    change(tuning);
    all.push_back({name, tuning});
  };
  add("everything small", [](Tuning& t) {
    t = {.l2_bytes = 4096,
         .l3_bytes = 16384,
         .plane_group_bytes = 4096,
         .column_group_bytes = 4096,
         .reverse_block_bytes = 4096,
         .serial_bytes = 256,
         .sweep_task_bytes = 4096};
  });
  add("streaming always", [](Tuning& t) { t.inference_stream_share = t.training_stream_share = 0; });
  add("streaming always, on threads", [](Tuning& t) {
    t.inference_stream_share = t.training_stream_share = 0;
    t.serial_bytes = 256, t.sweep_task_bytes = 10000;
  });
  add("streaming never", [](Tuning& t) { t.inference_stream_share = t.training_stream_share = 1e9; });
  add("all channels in one group", [](Tuning& t) { t.plane_group_bytes = t.column_group_bytes = 1 << 30; });
  add("one channel in a group", [](Tuning& t) { t.plane_group_bytes = t.column_group_bytes = 1; });
  add("reversed sweep", [](Tuning& t) { t.l3_bytes = 1 << 20, t.reverse_block_bytes = 64 << 10; });
  add("reversed sweep in tiny blocks", [](Tuning& t) { t.l3_bytes = 2 << 20, t.reverse_block_bytes = 1; });
  return all;
}

}  // namespace support
