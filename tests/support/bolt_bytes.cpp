#include "tests/support/bolt_bytes.h"

#include <cstring>
#include <string_view>

namespace pulga {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHeader = 16;
constexpr size_t kElement = 16;
constexpr size_t kMeta = 56;
enum Flags : uint16_t { kBranch = 1, kLeaf = 2, kMetaPage = 4, kFreelist = 16 };

template <typename T>
void Put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string HeaderOf(uint64_t number, uint16_t flags, size_t count, size_t overflow) {
  std::string out;
  Put<uint64_t>(out, number);
  Put<uint16_t>(out, flags);
  Put<uint16_t>(out, static_cast<uint16_t>(count));
  Put<uint32_t>(out, static_cast<uint32_t>(overflow));
  return out;
}

struct Element {
  bool is_bucket = false;
  std::string value;
};

// Without its header.
std::string LeafBody(const std::map<std::string, Element>& elements) {
  std::string index;
  std::string data;
  size_t number = 0;
  for (const auto& [key, element] : elements) {
    Put<uint32_t>(index, element.is_bucket ? 1 : 0);
    Put<uint32_t>(index,
                  static_cast<uint32_t>((elements.size() - number++) * kElement + data.size()));
    Put<uint32_t>(index, static_cast<uint32_t>(key.size()));
    Put<uint32_t>(index, static_cast<uint32_t>(element.value.size()));
    data += key + element.value;
  }
  return index + data;
}

class Writer {
 public:
  explicit Writer(BoltShape shape) : shape_(shape) {}

  // The page of its tree.
  uint64_t Place(const BoltTree& tree) {
    const auto elements = ElementsOf(tree);
    const uint64_t leaf = PutPage(kLeaf, elements.size(), LeafBody(elements));
    if (shape_ == BoltShape::kInline || elements.empty()) return leaf;
    std::string body;
    const std::string& first = elements.begin()->first;
    Put<uint32_t>(body, kElement);
    Put<uint32_t>(body, static_cast<uint32_t>(first.size()));
    Put<uint64_t>(body, leaf);
    return PutPage(kBranch, 1, body + first);
  }

  std::string Finish(uint64_t root) const {
    std::string out;
    for (uint64_t number = 0; number < 2; ++number) {
      std::string page = HeaderOf(number, kMetaPage, 0, 0);
      Put<uint32_t>(page, 0xED0CDAED);
      Put<uint32_t>(page, 2);
      Put<uint32_t>(page, kPage);
      Put<uint32_t>(page, 0);
      Put<uint64_t>(page, root);
      Put<uint64_t>(page, 0);                          // sequence
      Put<uint64_t>(page, 2);                          // free list
      Put<uint64_t>(page, 3 + pages_.size() / kPage);  // high water
      Put<uint64_t>(page, 7 + number);                 // transaction: the second is newer
      page.resize(kPage);
      out += page;
    }
    std::string free = HeaderOf(2, kFreelist, 0, 0);
    free.resize(kPage);
    out += free + pages_;
    SealBoltMeta(out, 0);
    SealBoltMeta(out, 1);
    return out;
  }

 private:
  std::map<std::string, Element> ElementsOf(const BoltTree& tree) {
    std::map<std::string, Element> elements;
    for (const auto& [key, value] : tree.values) elements[key] = {false, value};
    for (const auto& [key, inner] : tree.buckets) elements[key] = {true, BucketOf(inner)};
    return elements;
  }

  std::string BucketOf(const BoltTree& tree) {
    std::string out;
    Put<uint64_t>(out, shape_ == BoltShape::kInline ? 0 : Place(tree));
    Put<uint64_t>(out, 0);
    if (shape_ == BoltShape::kPages) return out;
    const auto elements = ElementsOf(tree);
    return out + HeaderOf(0, kLeaf, elements.size(), 0) + LeafBody(elements);
  }

  uint64_t PutPage(uint16_t flags, size_t count, const std::string& body) {
    const uint64_t number = 3 + pages_.size() / kPage;
    const size_t whole = (kHeader + body.size() + kPage - 1) / kPage;
    std::string page = HeaderOf(number, flags, count, whole - 1) + body;
    page.resize(whole * kPage);
    pages_ += page;
    return number;
  }

  BoltShape shape_;
  std::string pages_;
};

}  // namespace

void SealBoltMeta(std::string& file, int number) {
  const size_t at = static_cast<size_t>(number) * kPage + kHeader;
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : std::string_view(file).substr(at, kMeta)) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  std::memcpy(file.data() + at + kMeta, &hash, sizeof hash);
}

std::string BoltBytes(const BoltTree& tree, BoltShape shape) {
  Writer writer(shape);
  return writer.Finish(writer.Place(tree));
}

}  // namespace pulga
