// The JSON of tasks under /v1; like json_codec.h, whose rules hold. Pure.
#pragma once

#include <string>
#include <vector>

#include "runtime/tasks/tasks.h"

namespace pulga {

std::string TaskJson(const Task& task);
std::string TaskListJson(const std::vector<Task>& tasks, const TaskTotals& totals);

}  // namespace pulga
