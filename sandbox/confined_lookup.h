// The image's USER as numbers, before there is a spawner: read by a child that has given up root
// and all else but reading below that root, in namespaces of its own, since the image's /etc/passwd
// is hostile input. What it answers is believed of the image's own ids only. Blocks; needs root;
// kInvalidArgument: the image has no such user.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"
#include "sandbox/cgroup.h"

namespace pulga {

struct UserIds {  // of the image, below 65536
  uid_t uid = 0;
  gid_t gid = 0;
};
// `image_root_id`: the host's id for 0 of the image, as whom the child reads. In the cgroups of
// `join`: what the file makes it take is the version's.
Result<UserIds> LookUpUser(int root_fd, const std::string& user, uid_t image_root_id,
                           const CgroupJoin& join);

}  // namespace pulga
