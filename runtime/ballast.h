// Ballast: a file that only takes room, DATA/spare-room, so that on a full disk there is some to
// give up: what frees space writes to the database first. Storage thread and start-up; blocks on
// the disk. Where space cannot be set aside (a full disk, an odd filesystem) there is none.
#pragma once

#include <string>

namespace pulga {

class Ballast {
 public:
  explicit Ballast(const std::string& data_dir) : path_(data_dir + "/spare-room") {}
  // Makes it, unless it is there; quietly not when there is no room for all of it.
  void Keep();
  // Gives its room back; false when there was none.
  bool Drop();

 private:
  std::string path_;
  bool kept_ = false;
};

}  // namespace pulga
