// What the daemon's settings allow each service, in the service's own words. Pure; any thread.
#pragma once

#include "runtime/daemon/config.h"
#include "runtime/function_service.h"
#include "runtime/image_service.h"
#include "runtime/registry_access.h"
#include "runtime/resumable_uploads.h"
#include "runtime/sense/board_sense.h"
#include "runtime/tasks/task_service.h"

namespace pulga {

ImageLimits LimitsOfImages(const DaemonConfig& config);
ResumableLimits LimitsOfUploads(const DaemonConfig& config);
FunctionLimits LimitsOfFunctions(const DaemonConfig& config);
TaskLimits LimitsOfTasks(const DaemonConfig& config);
RegistryAccess AccessToRegistries(const DaemonConfig& config);
SenseOptions OptionsOfSense(const DaemonConfig& config);

}  // namespace pulga
