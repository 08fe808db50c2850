// From the flags of `pulga deploy`, and a function.json if one is given, to the body of the PUT.
// What the flags say is put in as written; whether it makes sense is the daemon's to judge. Pure.
#pragma once

#include <string>
#include <vector>

#include "api/cli/args.h"
#include "base/result.h"

namespace pulga::cli {

std::vector<Option> DeploySpecOptions();

struct DeploySpec {
  std::string name;   // of a "name" field in the file; "" without
  std::string image;  // as written: a reference or a file; "" when neither flag nor file says
  std::string json;
  bool pulls = true;  // may be asked of its registry when it is not here
};
// `file_text` is function.json, or "" without -f.
Result<DeploySpec> BuildDeploySpec(const Args& args, const std::string& file_text);
// The same with another image.
std::string WithImage(const std::string& json, const std::string& image);
// A file, rather than a name of an image: "./x.tar", "x.tar.gz", or an existing file's path.
bool LooksLikeArchive(const std::string& image);

}  // namespace pulga::cli
