// The commands, each group in its own file; main.cpp finds them by name.
#pragma once

#include <string>
#include <vector>

#include "api/cli/args.h"
#include "api/cli/client.h"

namespace pulga::cli {

std::vector<Command> ServerCommands();       // serve, serve-daemon, doctor, version
std::vector<Command> ImageCommands();        // image import|ls|inspect|rm|...
std::vector<Command> PullCommands();         // pull, image pull
std::vector<Command> ImageUpkeepCommands();  // image export|verify|prune
std::vector<Command> DeployCommands();       // deploy, rollback, scale, rm
std::vector<Command> FunctionCommands();     // ls, describe, logs
std::vector<Command> InvokeCommands();       // invoke
std::vector<Command> TaskCommands();         // tasks ls|show|result|rm
std::vector<Command> VolumeCommands();       // volume ls|create|inspect|rm
std::vector<Command> SecretCommands();       // secret ls|create|update|rm
std::vector<Command> AccountCommands();   // user ls|create|update|password|rm, sign-in, key ls|...
std::vector<Command> PolicyCommands();    // policy replay
std::vector<Command> OpenFaasCommands();  // export
std::vector<Command> FaasdCommands();     // import --faasd
std::vector<Command> RunCommands();       // run
std::vector<Command> BenchCommands();     // bench
std::vector<Command> AllCommands();

// "FILE", or "-" for stdin. On a terminal with a progress bar. Gives the daemon's reply (its JSON).
struct ImportRequest {
  std::string file;
  std::string ref;  // "" = the archive's own names
  bool any_platform = false;
  // kAuto: in parts to other machines, else only once a connection is lost.
  enum class Parts { kAuto, kAlways } parts = Parts::kAuto;
};
Result<ClientReply> ImportArchive(const DaemonClient& client, const ImportRequest& request);
// The names the import gave, first the one to deploy.
std::vector<std::string> ImportedRefs(const std::string& json);

// A line for each image of such a reply; warnings on stderr.
void PrintImages(const std::string& json, const std::string& verb);
// From a registry, with a progress bar. `auth_json` "": what the daemon has. Gives the same JSON.
Result<std::string> PullImage(const DaemonClient& client, const std::string& ref,
                              const std::string& auth_json);

// The receipt of a call, as `invoke -v` prints it.
std::string ReceiptTable(const ClientReply& reply);

}  // namespace pulga::cli
