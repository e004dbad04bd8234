// SPDX-License-Identifier: MIT

// libtorch is in a module of its own, loaded when first asked for: with its own ABI, and so that a libtorch which lacks one of
// the libraries it needs costs its column and not the program.

#include <dlfcn.h>

#include "offers.hpp"
#include "torch_table.hpp"

namespace bench {
namespace {

const TorchTable* torch_table() {
  static const TorchTable* table = []() -> const TorchTable* {
    void* module = dlopen(BATCHNORM_BENCH_TORCH_MODULE, RTLD_LAZY | RTLD_LOCAL);
    if (module == nullptr) return nullptr;
    const auto entry = reinterpret_cast<const TorchTable* (*)()>(dlsym(module, "batchnorm_bench_torch_table"));
    return entry == nullptr ? nullptr : entry();
  }();
  return table;
}

class Torch final : public Rival {
 public:
  Torch(const TorchTable& table, void* opened) : table_(table), opened_(opened) {}
  Torch(const Torch&) = delete;
  Torch& operator=(const Torch&) = delete;
  ~Torch() override { table_.close(opened_); }

  std::string name() const override { return torch_version(); }
  void run() override { table_.run(opened_); }
  void fetch_sums() override { table_.fetch_sums(opened_); }
  bool has_plain_result() const override { return table_.has_plain_result(opened_); }
  double seconds_to_sleep() const override { return table_.seconds_to_sleep(opened_); }

 private:
  const TorchTable& table_;
  void* opened_;
};

}  // namespace

void offer_torch(const Problem& problem, const Buffers& buffers, Offers& offers) {
  const TorchTable* table = torch_table();
  if (table == nullptr) return;
  const TorchProblem asked{static_cast<int>(problem.operation),      static_cast<int>(problem.layout),
                           static_cast<int>(problem.type),           problem.extents.data(),
                           static_cast<int>(problem.extents.size()), problem.threads};
  if (void* opened = table->open(&asked, &buffers)) offers.push_back(std::make_unique<Torch>(*table, opened));
}

std::string torch_version() {
  const TorchTable* table = torch_table();
  return table == nullptr ? std::string() : std::string("PyTorch ") + table->version;
}

}  // namespace bench
