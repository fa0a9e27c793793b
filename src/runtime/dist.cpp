// libtorch's c10d for Rust: the TCP store, the Gloo backend, and collectives on any backend. As in shim.cpp, a function
// that can fail returns 0 for success and leaves its message in hrm_last_error().
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "guarded.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace {

using hrm::guarded;
using StorePtr = c10::intrusive_ptr<c10d::Store>;
using BackendPtr = c10::intrusive_ptr<c10d::Backend>;
using WorkPtr = c10::intrusive_ptr<c10d::Work>;

at::Tensor& tensor(void* p) {
  return *static_cast<at::Tensor*>(p);
}
c10d::Store& store(void* p) {
  return **static_cast<StorePtr*>(p);
}
c10d::Backend& backend(void* p) {
  return **static_cast<BackendPtr*>(p);
}

std::vector<uint8_t> bytes(const char* text) {
  const std::string s(text);
  return {s.begin(), s.end()};
}

} // namespace

extern "C" {

// With `listening`, a socket of its own that listens on `port`, it is the store, else a client of that on `host`.
int hrm_store_open(const char* host, uint16_t port, int32_t listening, int64_t timeout_ms, void** out) noexcept {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = listening >= 0;
    if (options.isServer) {
      options.masterListenFd = listening;
    }
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    *out = new StorePtr(c10::make_intrusive<c10d::TCPStore>(host, options));
  });
}

// A store in a file that the processes share.
int hrm_store_file(const char* path, int64_t timeout_ms, void** out) noexcept {
  return guarded([&] {
    auto opened = c10::make_intrusive<c10d::FileStore>(path, -1);
    opened->setTimeout(std::chrono::milliseconds(timeout_ms));
    *out = new StorePtr(std::move(opened));
  });
}

// The same store, every key of which begins with `prefix`.
int hrm_store_prefix(void* self, const char* prefix, void** out) noexcept {
  return guarded([&] {
    *out = new StorePtr(c10::make_intrusive<c10d::PrefixStore>(prefix, *static_cast<StorePtr*>(self)));
  });
}

void hrm_store_free(void* self) noexcept {
  guarded([&] { delete static_cast<StorePtr*>(self); });
}

int hrm_store_set(void* self, const char* key, const char* value) noexcept {
  return guarded([&] { store(self).set(key, bytes(value)); });
}

int hrm_store_check(void* self, const char* key, int32_t* out) noexcept {
  return guarded([&] { *out = store(self).check({key}) ? 1 : 0; });
}

// The value of a key that is there, cut to `room - 1` bytes.
int hrm_store_get(void* self, const char* key, char* out, uint64_t room) noexcept {
  return guarded([&] {
    const auto value = store(self).get(key);
    const auto length = std::min<size_t>(value.size(), room - 1);
    std::copy_n(value.begin(), length, out);
    out[length] = 0;
  });
}

// As dist/group.rs declares it.
struct HrmGlooOptions {
  int32_t rank;
  int32_t world;
  int64_t timeout_ms;
  // Picks the network interface; null lets Gloo choose.
  const char* host;
  // Names one instead, or null.
  const char* interface;
};

int hrm_gloo_new(void* of, const HrmGlooOptions* asked, void** out) noexcept {
  return guarded([&] {
    const auto& [rank, world, timeout_ms, host, interface] = *asked;
    auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
    options->devices.push_back(
        interface ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
            : host ? c10d::ProcessGroupGloo::createDeviceForHostname(host)
                   : c10d::ProcessGroupGloo::createDefaultDevice());
    *out = new BackendPtr(c10::make_intrusive<c10d::ProcessGroupGloo>(*static_cast<StorePtr*>(of), rank, world, options));
  });
}

// For a backend whose collectives have all ended, on every rank.
void hrm_backend_close(void* self) noexcept {
  guarded([&] { backend(self).shutdown(); });
  guarded([&] { delete static_cast<BackendPtr*>(self); });
}

// Sums in place. With `work` the call returns at once and hrm_work_wait must follow.
int hrm_all_reduce(void* self, void* t, void** work) noexcept {
  return guarded([&] {
    std::vector<at::Tensor> tensors{tensor(t)};
    c10d::AllreduceOptions options;
    options.asyncOp = work != nullptr;
    auto started = backend(self).allreduce(tensors, options);
    if (work) {
      *work = new WorkPtr(std::move(started));
    } else if (started) {
      started->wait();
    }
  });
}

int hrm_broadcast(void* self, void* t, int64_t root) noexcept {
  return guarded([&] {
    std::vector<at::Tensor> tensors{tensor(t)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    options.asyncOp = false;
    if (auto started = backend(self).broadcast(tensors, options)) {
      started->wait();
    }
  });
}

// `out` is [world, ...] of `in`'s shape, both contiguous.
int hrm_all_gather(void* self, void* out, void* in) noexcept {
  return guarded([&] {
    c10d::AllgatherOptions options;
    options.asyncOp = false;
    if (auto started = backend(self)._allgather_base(tensor(out), tensor(in), options)) {
      started->wait();
    }
  });
}

int hrm_work_wait(void* self) noexcept {
  return guarded([&] { (*static_cast<WorkPtr*>(self))->wait(); });
}

void hrm_work_free(void* self) noexcept {
  guarded([&] { delete static_cast<WorkPtr*>(self); });
}

} // extern "C"
