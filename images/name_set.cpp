#include "images/name_set.h"

#include <sys/random.h>

#include "images/content_sum.h"

namespace pulga {
namespace {

constexpr size_t kSlots = size_t{1} << 17;
constexpr size_t kMask = kSlots - 1;
static_assert(NameSet::kMost <= kSlots / 4 * 3);

// One to one, every bit on every other.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

NameSet::NameSet() {
  // Without it, somebody could make names that lie beside each other: slow, not wrong.
  (void)!getrandom(&key_, sizeof key_, GRND_NONBLOCK);
}

uint64_t NameSet::SumOf(char kind, std::string_view name) const {
  ContentSum sum;
  sum.Update({&kind, 1});
  sum.Update(name);
  const uint64_t mixed = Mix(sum.Finish() ^ key_);
  return mixed == 0 ? 1 : mixed;
}

size_t NameSet::Place(uint64_t sum) const {
  size_t at = sum & kMask;
  while (slots_[at] != 0 && slots_[at] != sum) at = (at + 1) & kMask;
  return at;
}

bool NameSet::Insert(char kind, std::string_view name) {
  if (slots_ == nullptr) slots_.reset(static_cast<uint64_t*>(calloc(kSlots, sizeof(uint64_t))));
  if (slots_ == nullptr) return false;
  const uint64_t sum = SumOf(kind, name);
  const size_t at = Place(sum);
  if (slots_[at] == sum) return true;
  if (count_ == kMost) return false;
  slots_[at] = sum;
  ++count_;
  return true;
}

bool NameSet::Contains(char kind, std::string_view name) const {
  if (slots_ == nullptr) return false;
  return slots_[Place(SumOf(kind, name))] != 0;
}

void NameSet::Erase(char kind, std::string_view name) {
  if (slots_ == nullptr) return;
  size_t hole = Place(SumOf(kind, name));
  if (slots_[hole] == 0) return;
  --count_;
  // What was put further on because this place was taken moves up.
  for (size_t at = (hole + 1) & kMask; slots_[at] != 0; at = (at + 1) & kMask) {
    const size_t home = slots_[at] & kMask;
    if (((at - home) & kMask) < ((at - hole) & kMask)) continue;
    slots_[hole] = slots_[at];
    hole = at;
  }
  slots_[hole] = 0;
}

}  // namespace pulga
