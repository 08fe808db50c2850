// An archive sent in parts by the tus protocol: goes on where the daemon is after a lost
// connection, a restart of the daemon, or of this program (its own unfinished upload is known by
// the file's name, size, time and inode). Blocks; waits between tries, gives up after two minutes
// without progress. Says on stderr what happens. What has arrived is kept by the daemon in any
// case.
#pragma once

#include <string>

#include "api/cli/client.h"
#include "api/cli/commands.h"

namespace pulga::cli {

struct ArchiveFile {
  int fd = -1;  // a regular file; not owned
  std::string name;
};

// A daemon that is not there is waited for once it was: kLost when it has answered before.
enum class Contact { kNone, kLost };

// The reply of an import ({"images": [...]}). An Error carries the daemon's own message.
Result<ClientReply> ImportResumably(const DaemonClient& client, const ImportRequest& wanted,
                                    const ArchiveFile& file, Contact contact);

// This machine, or what looks like it: there the archive is streamed straight into the unpacker.
bool IsLocalUrl(const DaemonUrl& url);

}  // namespace pulga::cli
