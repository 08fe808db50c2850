// MemoryBudget: what all instances together may use, counted by their limits (a parked one by what
// the kernel needs for it, one that is frozen and cannot grow by what it holds), and how many
// instances there may be. Pure bookkeeping. Loop thread.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

namespace pulga {

class MemoryBudget {
 public:
  MemoryBudget(uint64_t total_bytes, uint32_t max_instances)
      : total_(total_bytes), max_instances_(max_instances) {}
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  // One instance's share; given back when the lease goes.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept { *this = std::move(other); }
    Lease& operator=(Lease&& other) noexcept {
      if (this != &other) {
        Reset();
        budget_ = std::exchange(other.budget_, nullptr);
        bytes_ = std::exchange(other.bytes_, 0);
      }
      return *this;
    }
    ~Lease() { Reset(); }
    void Reset() {
      if (budget_ != nullptr) budget_->GiveBack(bytes_);
      budget_ = nullptr;
      bytes_ = 0;
    }
    bool held() const { return budget_ != nullptr; }
    uint64_t bytes() const { return bytes_; }

   private:
    friend class MemoryBudget;
    MemoryBudget* budget_ = nullptr;
    uint64_t bytes_ = 0;
  };

  bool Fits(uint64_t bytes) const { return used_ + bytes <= total_ && instances_ < max_instances_; }
  // Not held when it does not fit.
  Lease Take(uint64_t bytes) { return Fits(bytes) ? Force(bytes) : Lease(); }
  // Also past the total: for a version that must prove itself beside the one it replaces.
  Lease Force(uint64_t bytes) {
    Lease lease;
    lease.budget_ = this;
    lease.bytes_ = bytes;
    used_ += bytes;
    ++instances_;
    return lease;
  }
  // False: the lease is as it was.
  bool Resize(Lease* lease, uint64_t bytes) {
    if (bytes > lease->bytes_ && used_ - lease->bytes_ + bytes > total_) return false;
    const bool freed = bytes < lease->bytes_;
    used_ = used_ - lease->bytes_ + bytes;
    lease->bytes_ = bytes;
    if (freed && on_freed_) on_freed_();
    return true;
  }

  bool full() const { return instances_ >= max_instances_; }
  uint64_t free_bytes() const { return total_ - (used_ < total_ ? used_ : total_); }
  uint32_t free_places() const { return full() ? 0 : max_instances_ - instances_; }
  uint64_t total() const { return total_; }
  uint64_t used() const { return used_; }
  uint32_t instances() const { return instances_; }
  uint32_t most_instances() const { return max_instances_; }
  // Called after something was given back.
  void set_on_freed(std::function<void()> on_freed) { on_freed_ = std::move(on_freed); }

 private:
  void GiveBack(uint64_t bytes) {
    used_ -= bytes;
    --instances_;
    if (on_freed_) on_freed_();
  }

  uint64_t total_;
  uint32_t max_instances_;
  uint64_t used_ = 0;
  uint32_t instances_ = 0;
  std::function<void()> on_freed_;
};

}  // namespace pulga
