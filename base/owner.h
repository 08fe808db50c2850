// Whose something is: images, layers, functions. One owner until there are accounts.
#pragma once

namespace pulga {

inline constexpr const char* kDefaultOwner = "admin";

}  // namespace pulga
