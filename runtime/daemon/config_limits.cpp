#include "runtime/daemon/config_limits.h"

namespace pulga {

ImageLimits LimitsOfImages(const DaemonConfig& config) {
  return {config.upload_bytes, config.image_bytes, config.reserve_bytes, config.max_uploads,
          CollectionMarks{config.disk_high, config.disk_low}};
}

ResumableLimits LimitsOfUploads(const DaemonConfig& config) {
  return {config.upload_bytes, config.reserve_bytes, config.max_unfinished_uploads,
          config.upload_expiry};
}

FunctionLimits LimitsOfFunctions(const DaemonConfig& config) {
  return {config.keep_versions, config.max_functions};
}

TaskLimits LimitsOfTasks(const DaemonConfig& config) {
  return {.unended = config.max_tasks,
          .bytes = config.task_bytes,
          .message_bytes = config.task_message_bytes,
          .keep_ended = config.task_keep};
}

RegistryAccess AccessToRegistries(const DaemonConfig& config) {
  RegistryAccess access;
  access.auth_file_is_named = !config.registry_auth.empty();
  access.auth_file =
      access.auth_file_is_named ? config.registry_auth : config.data_dir + "/registry-auth.json";
  access.ca_file = config.registry_ca;
  access.plain_http = config.plain_http;
  access.proxies = {config.https_proxy, config.http_proxy, config.no_proxy};
  access.at_once = config.pull_layers;
  access.stall_timeout = config.pull_stall_timeout;
  access.reserve_bytes = config.reserve_bytes;
  return access;
}

SenseOptions OptionsOfSense(const DaemonConfig& config) {
  return {config.pressure, config.pressure_steps, config.pressure_interval, config.pressure_hold};
}

}  // namespace pulga
