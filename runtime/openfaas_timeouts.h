// How long a call of a watchdog's image may take by its own settings, exec_timeout, read_timeout
// and write_timeout in its environment, so that the watchdog's answer to a time-out comes before
// ours. Pure. Source: the READMEs of OpenFaaS' classic watchdog and of-watchdog.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"

namespace pulga {

// For "NAME=value" entries. Never less than `least`, never more than a day. Durations as Go writes
// them, or whole seconds; 0 is no limit for exec_timeout. What can not be read counts as absent.
Duration WatchdogTimeout(const std::vector<std::string>& env, Duration least);

}  // namespace pulga
