// A plain tar as an image of one layer, for `volume create --from` and `bench`. Reads the file
// twice, keeps nothing; blocks until the daemon has imported it.
#pragma once

#include <string>

#include "api/cli/client.h"

namespace pulga::cli {

struct TarImage {
  std::string file;
  std::string ref;                       // the image's name
  std::string architecture = "unknown";  // of programs in it
};
Result<ClientReply> ImportTar(const DaemonClient& client, const TarImage& tar);

}  // namespace pulga::cli
