// The boundary between C++ and Rust, for the shim and the CUDA graph plugin: no exception leaves, its text is kept.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

namespace hrm {

inline thread_local std::string last_error;

// 0, or 1 with the message in last_error.
template <class Body>
int guarded(Body&& body) noexcept {
  try {
    body();
    return 0;
  } catch (const c10::Error& e) {
    last_error = e.what_without_backtrace();
  } catch (const std::exception& e) {
    last_error = e.what();
  } catch (...) {
    last_error = "unknown C++ exception";
  }
  return 1;
}

} // namespace hrm
