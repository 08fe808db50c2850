// What a faasd has, from its files: functions out of containerd's database, their images out of its
// content store, secrets. Nothing of it need run; what runs is not disturbed: files are only read.
// Source: openfaas/faasd 0.19 (where it keeps what), containerd 1.x metadata schema v1
// (core/metadata/buckets.go), OCI runtime and image specifications. Blocks on the disk.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "api/cli/faasd/bolt_file.h"
#include "base/result.h"

namespace pulga::cli {

struct FaasdFunction {
  std::string name;
  std::string name_space;
  std::string image;       // as containerd has it: normalised, with its tag
  std::string deployment;  // JSON, the body of PUT /system/functions
  std::vector<std::string> secrets;
  std::vector<std::string> notes;  // what is not taken along, in words
};

struct FaasdSecret {
  std::string name;
  std::string name_space;
  std::string path;
};

struct FaasdData {
  std::vector<std::string> name_spaces;  // those marked as for functions, or with secrets
  std::map<std::string, std::string> name_space_notes;  // by name: what is not taken along
  std::vector<FaasdFunction> functions;
  std::vector<FaasdSecret> secrets;
  std::vector<std::string> problems;  // what could not be read, in words
};

// `root`: "/" of the board or of its card. kNotFound: there is no faasd below it.
Result<FaasdData> ReadFaasd(const std::string& root);

// The files of one platform of an image in a content store.
struct StoredImage {
  std::string index;               // an index.json of this one manifest, with the image's name
  std::vector<std::string> blobs;  // "sha256:...": manifest, config, layers
};
// kNotFound: a file of it is not there (containerd was told to drop what it has unpacked, say).
Result<StoredImage> FindImage(const std::string& root, const std::string& name_space,
                              const std::string& image);
std::string BlobPath(const std::string& root, const std::string& digest);

// Parts of the above, for tests. What a container's runtime spec says of the function in it.
struct ContainerFacts {
  std::string name;
  std::string name_space;
  std::string image;
  std::string spec;  // JSON, OCI runtime
  std::map<std::string, std::string> labels;
  std::vector<std::string> image_env;
};
Result<FaasdFunction> FunctionOf(const ContainerFacts& facts);
// What a daemon would refuse of its deployment, whatever its board and images; pure.
Status CheckFunction(const FaasdFunction& function);
// Its labels and annotations, in words; empty when it has none but the mark of a namespace.
std::string NamespaceNote(const std::map<std::string, std::string>& labels);
// The bytes of google.protobuf.Any -> its value; nothing when it is none.
Result<std::string> AnyValue(std::string_view bytes);

}  // namespace pulga::cli
