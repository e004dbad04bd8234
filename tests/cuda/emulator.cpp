// SPDX-License-Identifier: MIT
#include "emulator.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <exception>
#include <mutex>
#include <new>
#include <numeric>
#include <sstream>
#include <stdexcept>

#include "support/sanitizers.hpp"

#if defined(BATCHNORM_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define BATCHNORM_NO_ASAN __attribute__((noinline, no_sanitize("address")))
#else
#define BATCHNORM_NO_ASAN
#endif

#if defined(BATCHNORM_TSAN)
#include <sanitizer/tsan_interface.h>
#define BATCHNORM_NO_TSAN __attribute__((noinline, no_sanitize("thread")))
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#else
#define BATCHNORM_NO_TSAN __attribute__((noinline))
#endif

#if !defined(__x86_64__) || defined(BATCHNORM_EMULATOR_UCONTEXT)
#define BATCHNORM_UCONTEXT 1
#include <ucontext.h>
#endif

namespace support {

namespace {

constexpr int lanes = batchnorm::cuda::warp_size;

// The emulator's own accesses are none of the thread sanitizer's business: fibers do not run at the same time.
#if defined(BATCHNORM_TSAN)
void begin_ignoring() {
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
void end_ignoring() {
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
void release(void* order) { __tsan_release(order); }
void acquire(void* order) { __tsan_acquire(order); }
#else
void begin_ignoring() {}
void end_ignoring() {}
void release(void*) {}
void acquire(void*) {}
#endif

class Ignoring {
 public:
  Ignoring() { begin_ignoring(); }
  ~Ignoring() { end_ignoring(); }
  Ignoring(const Ignoring&) = delete;
  Ignoring& operator=(const Ignoring&) = delete;
};

std::size_t page_size() {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

std::size_t round_up(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }

// `size` bytes, a whole number of pages, after a guard page and, if `both`, before another. Returns the first guard page.
std::byte* map_guarded(std::size_t size, bool both) {
  const std::size_t page = page_size();
  void* p = mmap(nullptr, size + (both ? 2 : 1) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<std::byte*>(p);
  if (size != 0 && mprotect(begin + page, size, PROT_READ | PROT_WRITE) != 0) {
    munmap(p, size + (both ? 2 : 1) * page);
    throw std::bad_alloc();
  }
  return begin;
}

// Makes the thread sanitizer forget who accessed the pages.
void map_anew([[maybe_unused]] std::byte* begin, [[maybe_unused]] std::size_t size) {
#if defined(BATCHNORM_TSAN)
  if (size == 0) return;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  if (mmap(begin, size, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) throw std::bad_alloc();
#endif
}

constexpr auto poison_byte = std::byte{0xFF};

std::mutex registry_mutex;

std::vector<const GuardedMemory*>& registry() {
  static std::vector<const GuardedMemory*> all;
  return all;
}

}  // namespace

GuardedMemory::GuardedMemory(std::size_t size, std::size_t offset, Placement::Edge edge, bool guard_exact) : size_(size) {
  constexpr std::size_t alignment = 16;
  const Ignoring ignoring;
  const std::size_t bytes = round_up(size + offset + alignment, page_size());
  mapping_ = map_guarded(bytes, true);
  pages_ = mapping_ + page_size();
  pages_end_ = pages_ + bytes;
  if (edge == Placement::Edge::begin) {
    data_ = pages_ + offset;
  } else if (guard_exact) {
    data_ = pages_end_ - size;
  } else {
    data_ = pages_ + (bytes - size - offset % alignment) / alignment * alignment + offset % alignment;
  }
  std::memset(pages_, 0xFF, bytes);
  poison_borders(true);
  const std::lock_guard lock(registry_mutex);
  registry().push_back(this);
}

GuardedMemory::~GuardedMemory() {
  const Ignoring ignoring;
  {
    const std::lock_guard lock(registry_mutex);
    std::erase(registry(), this);
  }
  poison_borders(false);
  munmap(mapping_, static_cast<std::size_t>(pages_end_ - mapping_) + page_size());
}

BATCHNORM_NO_ASAN bool GuardedMemory::intact() const {
  const Ignoring ignoring;
  for (const std::byte* p = pages_; p < data_; ++p) {
    if (*p != poison_byte) return false;
  }
  for (const std::byte* p = data_ + size_; p < pages_end_; ++p) {
    if (*p != poison_byte) return false;
  }
  return true;
}

void GuardedMemory::make_read_only(bool read_only) {
  mprotect(pages_, static_cast<std::size_t>(pages_end_ - pages_), read_only ? PROT_READ : PROT_READ | PROT_WRITE);
}

void GuardedMemory::poison() { std::memset(data_, 0xFF, size_); }

void GuardedMemory::renew() {
  const Ignoring ignoring;
  const auto bytes = static_cast<std::size_t>(pages_end_ - pages_);
  poison_borders(false);
  map_anew(pages_, bytes);
  std::memset(pages_, 0xFF, bytes);
  poison_borders(true);
}

const GuardedMemory* GuardedMemory::first_not_intact() {
  const Ignoring ignoring;
  const std::lock_guard lock(registry_mutex);
  const auto found = std::find_if(registry().begin(), registry().end(), [](const auto* memory) { return !memory->intact(); });
  return found != registry().end() ? *found : nullptr;
}

void GuardedMemory::poison_borders([[maybe_unused]] bool poisoned) const {
#if defined(BATCHNORM_ASAN)
  const auto before = static_cast<std::size_t>(data_ - pages_);
  const auto after = static_cast<std::size_t>(pages_end_ - (data_ + size_));
  if (poisoned) {
    __asan_poison_memory_region(pages_, before);
    __asan_poison_memory_region(data_ + size_, after);
  } else {
    __asan_unpoison_memory_region(pages_, static_cast<std::size_t>(pages_end_ - pages_));
  }
#endif
}

EmulatorStatistics& EmulatorStatistics::operator+=(const EmulatorStatistics& other) {
  launches += other.launches;
  blocks += other.blocks;
  threads += other.threads;
  barriers += other.barriers;
  warp_operations += other.warp_operations;
  switches += other.switches;
  return *this;
}

std::string to_string(const EmulatorStatistics& statistics) {
  std::ostringstream text;
  text << statistics.launches << " launches, each under its own schedule: " << statistics.blocks << " blocks, "
       << statistics.threads << " threads, " << statistics.barriers << " barriers, " << statistics.warp_operations
       << " warp operations, " << statistics.switches << " switches";
  return text.str();
}

namespace emulation {

namespace {

std::uint64_t next_random(std::uint64_t& state) {  // splitmix64
  std::uint64_t z = state += 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

// Stacks of fibers. Their tops differ by some cache lines, or the caches would hold few of them.
constexpr std::size_t stack_bytes = std::size_t{128} << 10;
constexpr std::size_t stack_colors = 16, stack_color_bytes = 256;

// A guard page makes two mappings of a stack, of the 65530 that Linux grants a process. Stacks beyond this number have none,
// and the kernel joins their mappings.
constexpr std::size_t guarded_stacks = 24576;

std::byte* map_stack(bool guarded) {
  if (guarded) return map_guarded(stack_bytes, false);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* p = mmap(nullptr, stack_bytes + page_size(), PROT_READ | PROT_WRITE, flags, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(p);
}

class Stack {
 public:
  explicit Stack(std::size_t number) : mapping_(map_stack(number < guarded_stacks)), color_(number % stack_colors) {}
  Stack(Stack&& other) noexcept : mapping_(std::exchange(other.mapping_, nullptr)), color_(other.color_) {}
  Stack& operator=(Stack&&) = delete;
  ~Stack() {
    if (mapping_ != nullptr) munmap(mapping_, stack_bytes + page_size());
  }

  std::byte* bottom() const { return mapping_ + page_size(); }
  std::size_t size() const { return stack_bytes - color_ * stack_color_bytes; }

  void renew() const {
    map_anew(bottom(), stack_bytes);
#if defined(BATCHNORM_ASAN)
    __asan_unpoison_memory_region(bottom(), stack_bytes);
#endif
  }

 private:
  std::byte* mapping_;
  std::size_t color_;
};

// The pool: the stacks of one thread's launches.
std::vector<Stack>& stacks() {
  thread_local std::vector<Stack> all;
  return all;
}

// A block of 1024 threads on each of 132 multiprocessors; the thread sanitizer has room for 8128 threads.
constexpr std::int64_t most_threads = thread_sanitizer ? 7000 : 132 * 1024;

struct Context {
#if defined(BATCHNORM_UCONTEXT)
  ucontext_t context = {};
#else
  void* stack_pointer = nullptr;
#endif
  void* tsan_fiber = nullptr;
  void* fake_stack = nullptr;
  const void* stack_bottom = nullptr;
  std::size_t stack_size = 0;
};

}  // namespace

#if !defined(BATCHNORM_UCONTEXT)

// swapcontext() without its system call for the signal mask: keeps what a call keeps (System V ABI), but the floating-point
// control words, which no body changes.
extern "C" void batchnorm_emulator_switch(void** save_stack_pointer, void* stack_pointer);

asm(R"(
.text
.p2align 4
.globl batchnorm_emulator_switch
.type batchnorm_emulator_switch, @function
batchnorm_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size batchnorm_emulator_switch, .-batchnorm_emulator_switch
)");

#endif

namespace {

// `dying`: the context is never switched to again.
BATCHNORM_NO_TSAN void switch_context(Context& from, const Context& to, [[maybe_unused]] bool dying) {
#if defined(BATCHNORM_ASAN)
  __sanitizer_start_switch_fiber(dying ? nullptr : &from.fake_stack, to.stack_bottom, to.stack_size);
#endif
#if defined(BATCHNORM_TSAN)
  end_ignoring();
  __tsan_switch_to_fiber(to.tsan_fiber, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(BATCHNORM_UCONTEXT)
  swapcontext(&from.context, &to.context);
#else
  batchnorm_emulator_switch(&from.stack_pointer, to.stack_pointer);
#endif
#if defined(BATCHNORM_TSAN)
  begin_ignoring();
#endif
#if defined(BATCHNORM_ASAN)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void prepare_context(Context& context, const Stack& stack, void (*entry)()) {
  stack.renew();
  context = {};
  context.stack_bottom = stack.bottom();
  context.stack_size = stack.size();
#if defined(BATCHNORM_UCONTEXT)
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = stack.bottom();
  context.context.uc_stack.ss_size = stack.size();
  makecontext(&context.context, entry, 0);
#else
  auto* top = reinterpret_cast<void**>(stack.bottom() + stack.size());
  *--top = nullptr;  // where entry would return to
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack_pointer = top;
#endif
#if defined(BATCHNORM_TSAN)
  context.tsan_fiber = __tsan_create_fiber(0);
#endif
}

struct Place {
  const char* file = "";
  int line = 0;

  bool operator==(const Place& other) const { return line == other.line && std::strcmp(file, other.file) == 0; }
};

const char* name(Wait wait) {
  switch (wait) {
    case Wait::none: return "runs";
    case Wait::sync: return "sync()";
    case Wait::cluster_sync: return "cluster_sync()";
    case Wait::grid_sync: return "grid_sync()";
    case Wait::shuffle_xor: return "shuffle_xor()";
    case Wait::shuffle: return "shuffle()";
    case Wait::bits_of: return "bits_of()";
    case Wait::ended: return "ended";
  }
  return "";
}

bool is_barrier(Wait wait) { return wait == Wait::sync || wait == Wait::cluster_sync || wait == Wait::grid_sync; }

// Where threads wait for each other. Two addresses order them in turns: a thread that has left and gone on to the next round
// must not be ordered before one that has not left yet.
struct Rendezvous {
  int members = 0;
  int waiting = 0;
  int ended = 0;
  int round = 0;
  const Fiber* first = nullptr;  ///< to wait
  std::uint64_t* order = nullptr;

  std::uint64_t* round_order() const { return order + round % 2; }
};

struct Block;

struct Warp {
  Block* block = nullptr;
  int rank = 0;  ///< among all warps of the wave
  std::uint32_t runnable = 0;
  std::ptrdiff_t ready_index = -1;
  int waiting = 0;               ///< lanes, at whatever they wait for
  const Fiber* first = nullptr;  ///< of those, if any
  Rendezvous operation;
  std::uint64_t values[2][lanes] = {};
};

struct Cluster;

struct Block {
  Cluster* cluster = nullptr;
  std::int64_t rank = 0;
  int first_thread = 0;          ///< among all of the wave
  int waiting = 0;               ///< threads, at a barrier
  const Fiber* first = nullptr;  ///< of those, if any
  Rendezvous barrier;
  std::uint64_t* exit_order = nullptr;
  GuardedMemory* shared = nullptr;
};

struct Cluster {
  std::int64_t rank = 0;
  int first_block = 0;  ///< among all of the wave
  Rendezvous barrier;
};

}  // namespace

struct Fiber {
  Context context;
  Warp* warp = nullptr;
  int rank = 0;  ///< in the block
  int lane = 0;
  Wait wait = Wait::none;
  Place place = {};
};

namespace {

std::ostream& operator<<(std::ostream& out, const Fiber& fiber) {
  return out << "thread " << fiber.rank << " of block " << fiber.warp->block->rank;
}

std::ostream& operator<<(std::ostream& out, const Place& place) { return out << place.file << ":" << place.line; }

// What a thread does.
void describe(std::ostream& out, Wait wait, const Place& place) {
  switch (wait) {
    case Wait::none: out << "runs"; break;
    case Wait::ended: out << "has ended"; break;
    default: out << (is_barrier(wait) ? "waits in " : "waits for its warp in ") << name(wait) << " at " << place;
  }
}

// Chunks that were loaded or stored, by address.
class AccessTable {
 public:
  /// Adds the access; returns all those made of that chunk.
  unsigned add(const void* p, unsigned access) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    std::uint64_t& slot = find(slots_, reinterpret_cast<std::uintptr_t>(p) / 16);
    if (slot == 0) ++used_, slot = reinterpret_cast<std::uintptr_t>(p) / 16 << 2;
    slot |= access;
    return static_cast<unsigned>(slot & 3U);
  }

 private:
  static std::uint64_t& find(std::vector<std::uint64_t>& slots, std::uint64_t key) {
    std::size_t i = key * 0x9E3779B97F4A7C15U >> 20;
    for (;; ++i) {
      std::uint64_t& slot = slots[i & (slots.size() - 1)];
      if (slot == 0 || slot >> 2 == key) return slot;
    }
  }

  void grow() {
    std::vector<std::uint64_t> slots((std::max)(std::size_t{1024}, 4 * slots_.size()));
    for (const std::uint64_t slot : slots_) {
      if (slot != 0) find(slots, slot >> 2) = slot;
    }
    slots_ = std::move(slots);
  }

  std::vector<std::uint64_t> slots_;
  std::size_t used_ = 0;
};

EmulatorStatistics& total() {
  static EmulatorStatistics statistics;
  return statistics;
}
std::mutex total_mutex;

thread_local Machine* active_machine = nullptr;

}  // namespace

/// One launch.
class Machine {
  using Launch = batchnorm::cuda::Launch;

 public:
  Machine(Emulator& emulator, const Launch& launch, const void* body, Emulator::Entry entry)
      : emulator_(emulator), options_(emulator.options_), launch_(launch), body_(body), entry_(entry) {}
  ~Machine() { active_machine = previous_machine_; }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  void check_launch(int max_threads) const;
  void run();

  void wait(Fiber& self, Wait barrier, Place place);
  /// Waits for the warp; returns the values of its lanes, valid until this thread's next operation but one.
  const std::uint64_t* exchange(Fiber& self, Wait operation, std::uint64_t value, Place place);
  const void* shared_of(Fiber& self, const void* p, std::size_t size, int rank, Place place);
  void note_access(Fiber& self, const char* what, const void* p, unsigned access, Place place);

 private:
  std::vector<std::int64_t> cluster_order();
  void run_wave(std::span<const std::int64_t> clusters);
  void set_up(std::span<const std::int64_t> clusters);
  void tear_down(bool failed);
  std::runtime_error deadlock() const;
  template <class Describe>
  [[noreturn]] void fail(Fiber& self, const Describe& describe_failure);
  template <class Describe>
  std::runtime_error error(const Describe& describe_error) const;

  void set_runnable(Fiber& fiber);
  Fiber* pick();
  void go_on(Fiber& self);
  void open(Rendezvous& rendezvous, int first_thread);
  void check_lanes(Fiber& self, Wait wait, const Place& place);
  void arrive(Fiber& self, Rendezvous& rendezvous, int first_thread);
  void end(Fiber& self);
  static void enter();
  [[noreturn]] void enter_fiber();
  [[noreturn]] void leave(Fiber& self, Context& to);

  std::uint64_t random() { return next_random(emulator_.random_); }
  int threads_of_wave() const { return static_cast<int>(fibers_.size()); }

  Emulator& emulator_;
  const EmulatorOptions& options_;
  const Launch launch_;
  const void* body_;
  Emulator::Entry entry_;
  Machine* previous_machine_ = nullptr;

  Context main_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::vector<Block> blocks_;
  std::vector<Cluster> clusters_;
  Rendezvous grid_;
  std::vector<std::unique_ptr<GuardedMemory>> shared_;
  std::vector<Warp*> ready_;
  Warp* current_warp_ = nullptr;
  Fiber* current_ = nullptr;
  unsigned stay_ = 0;  // of 256: how often the next thread is of the same warp, if it can be
  int ended_ = 0;
  std::unique_ptr<std::uint64_t[]> orders_;
  std::uint64_t launch_order_ = 0;
  std::exception_ptr exception_;
  AccessTable accesses_;
  EmulatorStatistics statistics_;
};

void Machine::check_launch(int max_threads) const {
  const auto require = [](bool condition, const char* message) {
    if (!condition) throw std::runtime_error(std::string("launch: ").append(message));
  };
  require(launch_.threads >= lanes && launch_.threads % lanes == 0, "threads is not a number of whole warps");
  require(launch_.threads <= max_threads, "threads exceeds the body's max_threads");
  require(launch_.blocks >= 1 && launch_.blocks <= 0x7FFFFFFF, "blocks is not between 1 and 2^31 - 1");
  require(launch_.cluster >= 1 && launch_.cluster <= 16, "cluster is not between 1 and 16");
  require(launch_.blocks % launch_.cluster == 0, "blocks is not a multiple of cluster");
  require(launch_.shared_bytes >= 0 && launch_.shared_bytes <= 227 * 1024, "shared_bytes is not between 0 and 227 KB");
  require(!launch_.cooperative || options_.blocks.empty(), "a cooperative launch needs all blocks, not those of the options");
  for (const std::int64_t block : options_.blocks) {
    require(block >= 0 && block < launch_.blocks, "the options name a block that is not there");
  }
  require(!options_.blocks.empty() || launch_.blocks <= std::int64_t{1} << 24, "too many blocks; name some in the options");
  const std::int64_t together = launch_.cooperative ? launch_.blocks : launch_.cluster;
  require(together <= most_threads / launch_.threads, "more threads at once than the emulator has stacks for");
}

std::vector<std::int64_t> Machine::cluster_order() {
  std::vector<std::int64_t> order;
  if (options_.blocks.empty()) {
    order.resize(static_cast<std::size_t>(launch_.blocks / launch_.cluster));
    std::iota(order.begin(), order.end(), std::int64_t{0});
  } else {
    for (const std::int64_t block : options_.blocks) order.push_back(block / launch_.cluster);
    std::sort(order.begin(), order.end());
    order.erase(std::unique(order.begin(), order.end()), order.end());
  }
  if (options_.schedule == Schedule::reverse) std::reverse(order.begin(), order.end());
  if (options_.schedule == Schedule::random) {
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  }
  return order;
}

void Machine::run() {
  ++statistics_.launches;
  previous_machine_ = std::exchange(active_machine, this);
#if defined(BATCHNORM_TSAN)
  main_.tsan_fiber = __tsan_get_current_fiber();
#endif
  const std::vector<std::int64_t> order = cluster_order();
  for (std::size_t done = 0; done < order.size();) {
    std::size_t clusters = 1;
    if (launch_.cooperative) {
      clusters = order.size();
    } else if (options_.schedule == Schedule::random) {
      const auto most = static_cast<std::size_t>(2048 / (launch_.threads * launch_.cluster));
      clusters = (std::min)({1 + random() % 4, (std::max)(most, std::size_t{1}), order.size() - done});
    }
    run_wave(std::span(order).subspan(done, clusters));
    done += clusters;
  }
  acquire(&launch_order_);
  if (const GuardedMemory* memory = GuardedMemory::first_not_intact()) {
    throw error([&](std::ostream& out) { out << "bytes beside the " << memory->size() << " of a buffer were written"; });
  }
  emulator_.statistics_ += statistics_;
  const std::lock_guard lock(total_mutex);
  total() += statistics_;
}

void Machine::run_wave(std::span<const std::int64_t> clusters) {
  set_up(clusters);
  current_ = pick();
  switch_context(main_, current_->context, false);
  if (!exception_ && ended_ != threads_of_wave()) exception_ = std::make_exception_ptr(deadlock());
  tear_down(exception_ != nullptr);
  if (exception_) std::rethrow_exception(std::exchange(exception_, nullptr));
  statistics_.blocks += static_cast<std::int64_t>(blocks_.size());
  statistics_.threads += threads_of_wave();
  for (const Block& block : blocks_) {
    if (block.shared->intact()) continue;
    throw error([&](std::ostream& out) {
      out << "block " << block.rank << " wrote beside its " << launch_.shared_bytes << " bytes of shared memory";
    });
  }
}

void Machine::set_up(std::span<const std::int64_t> clusters) {
  const int threads = launch_.threads, warps = threads / lanes;
  const std::size_t block_count = clusters.size() * static_cast<std::size_t>(launch_.cluster);
  const std::size_t thread_count = block_count * static_cast<std::size_t>(threads);
  fibers_.assign(thread_count, {});
  warps_.assign(thread_count / lanes, {});
  blocks_.assign(block_count, {});
  clusters_.assign(clusters.size(), {});
  ready_.clear();
  current_warp_ = nullptr;
  ended_ = 0;
  constexpr unsigned stay[] = {0, 128, 240, 256};
  stay_ = options_.schedule == Schedule::random ? stay[random() % 4] : 256;

  // New addresses for each wave, without what earlier waves ordered by them.
  orders_ = std::make_unique<std::uint64_t[]>(2 * warps_.size() + 3 * block_count + 2 * clusters.size() + 2);
  std::uint64_t* order = orders_.get();
  const auto set_members = [&order](Rendezvous& rendezvous, int members) {
    rendezvous = {};
    rendezvous.members = members;
    rendezvous.order = std::exchange(order, order + 2);
  };

  while (shared_.size() < block_count) {
    const auto bytes = static_cast<std::size_t>(launch_.shared_bytes);
    shared_.push_back(std::make_unique<GuardedMemory>(bytes, 0, Placement::Edge::end, false));
  }
  auto& all_stacks = stacks();
  while (all_stacks.size() < thread_count) all_stacks.emplace_back(all_stacks.size());

  set_members(grid_, static_cast<int>(thread_count));
  for (std::size_t i = 0; i < clusters_.size(); ++i) {
    clusters_[i].rank = clusters[i];
    clusters_[i].first_block = static_cast<int>(i) * launch_.cluster;
    set_members(clusters_[i].barrier, threads * launch_.cluster);
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    Block& block = blocks_[i];
    block.cluster = &clusters_[i / static_cast<std::size_t>(launch_.cluster)];
    block.rank = block.cluster->rank * launch_.cluster + static_cast<int>(i) - block.cluster->first_block;
    block.first_thread = static_cast<int>(i) * threads;
    block.shared = shared_[i].get();
    block.shared->renew();
    block.exit_order = order++;
    set_members(block.barrier, threads);
  }
  ready_.reserve(warps_.size());
  for (std::size_t i = 0; i < warps_.size(); ++i) {
    warps_[i].block = &blocks_[i / static_cast<std::size_t>(warps)];
    warps_[i].rank = static_cast<int>(i);
    set_members(warps_[i].operation, lanes);
  }
  for (std::size_t i = 0; i < fibers_.size(); ++i) {
    Fiber& fiber = fibers_[i];
    fiber.warp = &warps_[i / lanes];
    fiber.rank = static_cast<int>(i) % threads;
    fiber.lane = static_cast<int>(i) % lanes;
    prepare_context(fiber.context, all_stacks[i], &Machine::enter);
    set_runnable(fiber);
  }
}

// `failed`: threads are left where they wait, and what they did is before what the launching thread does next.
BATCHNORM_NO_TSAN void Machine::tear_down([[maybe_unused]] bool failed) {
#if defined(BATCHNORM_TSAN)
  for (Fiber& fiber : fibers_) {
    if (failed) {
      __tsan_switch_to_fiber(fiber.context.tsan_fiber, 0);
      __tsan_switch_to_fiber(main_.tsan_fiber, 0);
    }
    __tsan_destroy_fiber(fiber.context.tsan_fiber);
  }
#endif
}

template <class Describe>
std::runtime_error Machine::error(const Describe& describe_error) const {
  std::ostringstream text;
  describe_error(text);
  text << " (schedule ";
  switch (options_.schedule) {
    case Schedule::random: text << "of seed " << options_.seed; break;
    case Schedule::in_order: text << "in order"; break;
    case Schedule::reverse: text << "in reverse"; break;
  }
  text << ")";
  return std::runtime_error(text.str());
}

// Ends the launch. The thread's stack is left as it is; so the text is written here, not by callers.
template <class Describe>
void Machine::fail(Fiber& self, const Describe& describe_failure) {
  exception_ = std::make_exception_ptr(error([&](std::ostream& out) {
    out << self << " ";
    describe_failure(out);
  }));
  leave(self, main_);
}

std::runtime_error Machine::deadlock() const {
  return error([this](std::ostream& out) {
    out << "deadlock: ";
    constexpr int most_named = 8;
    int named = 0;
    const Fiber* last = nullptr;
    for (const Fiber& fiber : fibers_) {
      if (last != nullptr && fiber.wait == last->wait && fiber.place == last->place) continue;
      if (named++ == most_named) break;
      out << (last != nullptr ? "; " : "") << fiber << " ";
      describe(out, fiber.wait, fiber.place);
      last = &fiber;
    }
  });
}

void Machine::set_runnable(Fiber& fiber) {
  Warp& warp = *fiber.warp;
  fiber.wait = Wait::none;
  warp.runnable |= 1U << fiber.lane;
  if (warp.ready_index >= 0) return;
  warp.ready_index = static_cast<std::ptrdiff_t>(ready_.size());
  ready_.push_back(&warp);
}

// The next thread to run, or null.
Fiber* Machine::pick() {
  if (ready_.empty()) return nullptr;
  const std::uint64_t number = options_.schedule == Schedule::random ? random() : 0;
  Warp* warp = current_warp_;
  if (warp == nullptr || warp->runnable == 0 || (number & 255) >= stay_) {
    const auto before = [](const Warp* a, const Warp* b) { return a->rank < b->rank; };
    switch (options_.schedule) {
      case Schedule::random: warp = ready_[(number >> 32) * ready_.size() >> 32]; break;
      case Schedule::in_order: warp = *std::min_element(ready_.begin(), ready_.end(), before); break;
      case Schedule::reverse: warp = *std::max_element(ready_.begin(), ready_.end(), before); break;
    }
  }
  int lane = 0;
  switch (options_.schedule) {
    case Schedule::random: {
      const int first = static_cast<int>(number >> 8 & 31);
      lane = (std::countr_zero(std::rotr(warp->runnable, first)) + first) % lanes;
      break;
    }
    case Schedule::in_order: lane = std::countr_zero(warp->runnable); break;
    case Schedule::reverse: lane = lanes - 1 - std::countl_zero(warp->runnable); break;
  }
  warp->runnable &= ~(1U << lane);
  if (warp->runnable == 0) {
    ready_.back()->ready_index = warp->ready_index;
    ready_[static_cast<std::size_t>(warp->ready_index)] = ready_.back();
    ready_.pop_back();
    warp->ready_index = -1;
  }
  current_warp_ = warp;
  return &fibers_[static_cast<std::size_t>(warp->rank) * lanes + static_cast<std::size_t>(lane)];
}

// Lets another thread run until this one is chosen; where none can run, ends the wave.
void Machine::go_on(Fiber& self) {
  Fiber* next = pick();
  if (next == &self) return;
  ++statistics_.switches;
  current_ = next;
  switch_context(self.context, next != nullptr ? next->context : main_, false);
}

void Machine::leave(Fiber& self, Context& to) {
  switch_context(self.context, to, true);
  std::terminate();
}

void Machine::open(Rendezvous& rendezvous, int first_thread) {
  ++rendezvous.round;
  rendezvous.waiting = 0;
  for (int i = first_thread; i < first_thread + rendezvous.members; ++i) {
    Fiber& fiber = fibers_[static_cast<std::size_t>(i)];
    fiber.warp->waiting = 0;
    fiber.warp->block->waiting = 0;
    set_runnable(fiber);
  }
}

// What the other lanes of the warp and, for a barrier, the other threads of the block do must be the same.
void Machine::check_lanes(Fiber& self, Wait wait, const Place& place) {
  const auto check = [&](const Fiber& other, const char* whose) {
    if (other.wait == wait && other.place == place) return;
    fail(self, [&](std::ostream& out) {
      describe(out, wait, place);
      out << ", but " << other << whose;
      describe(out, other.wait, other.place);
    });
  };
  const Warp& warp = *self.warp;
  const Block& block = *warp.block;
  if (warp.waiting != 0) check(*warp.first, ", of its warp, ");
  if (is_barrier(wait) && block.waiting != 0) check(*block.first, ", of its block, ");
}

void Machine::arrive(Fiber& self, Rendezvous& rendezvous, int first_thread) {
  const auto fail_beside = [&](const Fiber& other) {
    fail(self, [&](std::ostream& out) {
      describe(out, self.wait, self.place);
      out << ", but " << other << " ";
      describe(out, other.wait, other.place);
    });
  };
  if (rendezvous.waiting != 0 && !(rendezvous.first->place == self.place)) fail_beside(*rendezvous.first);
  if (rendezvous.ended != 0) {
    const auto first = fibers_.begin() + first_thread;
    fail_beside(*std::find_if(first, first + rendezvous.members, [](const Fiber& f) { return f.wait == Wait::ended; }));
  }
  void* order = rendezvous.round_order();
  release(order);
  Warp& warp = *self.warp;
  if (warp.waiting++ == 0) warp.first = &self;
  if (is_barrier(self.wait) && warp.block->waiting++ == 0) warp.block->first = &self;
  if (rendezvous.waiting++ == 0) rendezvous.first = &self;
  if (rendezvous.waiting == rendezvous.members) {
    ++(is_barrier(self.wait) ? statistics_.barriers : statistics_.warp_operations);
    open(rendezvous, first_thread);
  }
  go_on(self);
  acquire(order);
}

void Machine::wait(Fiber& self, Wait barrier, Place place) {
  check_lanes(self, barrier, place);
  self.wait = barrier;
  self.place = place;
  Block& block = *self.warp->block;
  switch (barrier) {
    case Wait::sync: return arrive(self, block.barrier, block.first_thread);
    case Wait::cluster_sync: return arrive(self, block.cluster->barrier, block.cluster->first_block * launch_.threads);
    default: break;
  }
  if (!launch_.cooperative) {
    fail(self, [&](std::ostream& out) { out << "calls grid_sync() at " << place << " in a launch that is not cooperative"; });
  }
  arrive(self, grid_, 0);
}

const std::uint64_t* Machine::exchange(Fiber& self, Wait operation, std::uint64_t value, Place place) {
  check_lanes(self, operation, place);
  self.wait = operation;
  self.place = place;
  Warp& warp = *self.warp;
  std::uint64_t* values = warp.values[warp.operation.round % 2];
  values[self.lane] = value;
  arrive(self, warp.operation, warp.rank * lanes);
  return values;
}

const void* Machine::shared_of(Fiber& self, const void* p, std::size_t size, int rank, Place place) {
  const Block& block = *self.warp->block;
  const auto fail_here = [&](const auto&... what) {
    fail(self, [&](std::ostream& out) { ((out << "calls cluster_shared() at " << place << " ") << ... << what); });
  };
  if (rank < 0 || rank >= launch_.cluster) fail_here("for block ", rank, " of a cluster of ", launch_.cluster);
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  const auto begin = reinterpret_cast<std::uintptr_t>(block.shared->data());
  if (address < begin || address - begin > block.shared->size() || block.shared->size() - (address - begin) < size) {
    fail_here("with an address outside the block's shared memory");
  }
  return blocks_[static_cast<std::size_t>(block.cluster->first_block + rank)].shared->data() + (address - begin);
}

void Machine::note_access(Fiber& self, const char* what, const void* p, unsigned access, Place place) {
  const auto fail_here = [&](const char* message) {
    fail(self, [&](std::ostream& out) { out << "calls " << what << " at " << place << message; });
  };
  if (reinterpret_cast<std::uintptr_t>(p) % sizeof(batchnorm::cuda::Chunk) != 0) fail_here(" with a misaligned address");
  if (access != 0 && options_.read_only && accesses_.add(p, access) == 3) {
    fail_here(": load() is for memory that no thread writes in the same launch");
  }
}

namespace {

// The last thread of a block of a cluster writes over the block's shared memory: other blocks must be done with it.
void write_over_shared_memory_of_ended_block(std::byte* shared, std::size_t size) { std::memset(shared, 0xFF, size); }

}  // namespace

void Machine::end(Fiber& self) {
  Block& block = *self.warp->block;
  const auto check = [&](bool waiting, const Fiber* other) {
    if (!waiting) return;
    fail(self, [&](std::ostream& out) {
      out << "ends, but " << *other << " ";
      describe(out, other->wait, other->place);
    });
  };
  check(self.warp->waiting != 0, self.warp->first);
  check(block.waiting != 0, block.first);
  check(block.cluster->barrier.waiting != 0, block.cluster->barrier.first);
  check(grid_.waiting != 0, grid_.first);

  self.wait = Wait::ended;
  ++self.warp->operation.ended;
  ++block.barrier.ended;
  ++block.cluster->barrier.ended;
  ++grid_.ended;
  ++ended_;
  release(block.exit_order);
  if (block.barrier.ended == block.barrier.members && launch_.cluster > 1 && block.shared->size() != 0) {
    acquire(block.exit_order);
    end_ignoring();
    write_over_shared_memory_of_ended_block(block.shared->data(), block.shared->size());
    begin_ignoring();
  }
  release(&launch_order_);
}

void Machine::enter() { active_machine->enter_fiber(); }

BATCHNORM_NO_TSAN void Machine::enter_fiber() {
#if defined(BATCHNORM_ASAN)
  const void* bottom = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (main_.stack_bottom == nullptr) main_.stack_bottom = bottom, main_.stack_size = size;
#endif
  begin_ignoring();
  Fiber& self = *current_;
  const Block& block = *self.warp->block;
  EmulatedThread thread;
  thread.machine_ = this;
  thread.fiber_ = &self;
  thread.shared_ = block.shared->data();
  thread.block_rank_ = block.rank;
  thread.block_count_ = launch_.blocks;
  thread.thread_rank_ = self.rank;
  thread.block_size_ = launch_.threads;
  thread.cluster_size_ = launch_.cluster;
  try {
    end_ignoring();
    entry_(body_, thread);
    begin_ignoring();
  } catch (...) {
    begin_ignoring();
    exception_ = std::current_exception();
  }
  if (exception_) leave(self, main_);
  end(self);
  Fiber* next = pick();
  current_ = next;
  leave(self, next != nullptr ? next->context : main_);
}

}  // namespace emulation

void EmulatedThread::wait(emulation::Wait barrier, const char* file, int line) const {
  const Ignoring ignoring;
  machine_->wait(*fiber_, barrier, {file, line});
}

std::uint64_t EmulatedThread::exchange_bits(emulation::Wait operation, std::uint64_t bits, int lane, const char* file,
                                            int line) const {
  const Ignoring ignoring;
  const std::uint64_t* values = machine_->exchange(*fiber_, operation, bits, {file, line});
  return lane >= 0 && lane < lanes ? values[lane] : ~std::uint64_t{0};
}

std::uint32_t EmulatedThread::bits_of(bool predicate, const char* file, int line) const {
  const Ignoring ignoring;
  const std::uint64_t* values = machine_->exchange(*fiber_, emulation::Wait::bits_of, predicate ? 1 : 0, {file, line});
  std::uint32_t bits = 0;
  for (int lane = 0; lane < lanes; ++lane) bits |= static_cast<std::uint32_t>(values[lane]) << lane;
  return bits;
}

const void* EmulatedThread::shared_of(const void* p, std::size_t size, int rank, const char* file, int line) const {
  const Ignoring ignoring;
  return machine_->shared_of(*fiber_, p, size, rank, {file, line});
}

void EmulatedThread::check_access(const char* what, const void* p, unsigned access, const char* file, int line) const {
  const Ignoring ignoring;
  machine_->note_access(*fiber_, what, p, access, {file, line});
}

void Emulator::run(const batchnorm::cuda::Launch& launch, int max_threads, const void* body, Entry entry) {
  const Ignoring ignoring;
  emulation::Machine machine(*this, launch, body, entry);
  machine.check_launch(max_threads);
  machine.run();
}

EmulatorStatistics Emulator::total_statistics() {
  const std::lock_guard lock(emulation::total_mutex);
  return emulation::total();
}

}  // namespace support
