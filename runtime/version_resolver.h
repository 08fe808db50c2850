// From a spec and an image to a Version: what the image says, what the spec overrides, and the
// choice between exec and http mode with its reason. Pure. Errors name what to add to the spec.
// Source: docs/api.md "How a function is invoked"; OCI image spec, config.md.
#pragma once

#include "base/result.h"
#include "images/image.h"
#include "runtime/function_spec.h"
#include "runtime/version.h"

namespace pulga {

// Is its program one of OpenFaaS' watchdogs? They go on for half a minute when told to end.
bool RunsWatchdog(const Version& version);

// Everything but id, number, key and created_unix_ms is filled in. `spec` has been validated.
Result<Version> ResolveVersion(const FunctionSpec& spec, const ImageRecord& image);
// Its mode alone, also of an image for other boards.
Result<SandboxMode> ResolveMode(const FunctionSpec& spec, const ImageRecord& image);

}  // namespace pulga
