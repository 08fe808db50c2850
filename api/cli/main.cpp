// pulga: the daemon's entry and its client, one binary. Finds the command, parses, runs.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "runtime/function_spec.h"

namespace pulga::cli {
namespace {

std::string Overview(const std::vector<Command>& commands) {
  std::string out =
      "Usage: pulga COMMAND [options]\n\nFunctions from container images, without Docker.\n\n";
  Table table({});
  for (const Command& command : commands) {
    if (command.listed) table.Add({{"  " + command.name, Colour::kBold}, {command.summary}});
  }
  return out + table.Render(Style::ForFd(1)) +
         "\nEvery command has --help and --json. Clients read PULGA_URL and PULGA_KEY.\n";
}

std::string OverviewJson(const std::vector<Command>& commands) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Command& command : commands) {
    if (!command.listed) continue;
    list.push_back(
        {{"name", command.name}, {"usage", command.usage}, {"summary", command.summary}});
  }
  return nlohmann::ordered_json({{"commands", list}}).dump() + "\n";
}

// "image import x.tar" is the command "image import"; takes its words off `given`.
const Command* FindCommand(const std::vector<Command>& commands, std::vector<std::string>* given) {
  for (size_t words = std::min<size_t>(2, given->size()); words > 0; --words) {
    std::string name = (*given)[0];
    if (words == 2) name += " " + (*given)[1];
    for (const Command& command : commands) {
      if (command.name != name) continue;
      given->erase(given->begin(), given->begin() + static_cast<std::ptrdiff_t>(words));
      return &command;
    }
  }
  return nullptr;
}

int ShowHelp(const std::vector<Command>& commands, std::vector<std::string> given) {
  std::erase(given, "--help");
  std::erase(given, "-h");
  const bool json = std::erase(given, "--json") != 0;
  const Command* command = FindCommand(commands, &given);
  if (command == nullptr && !given.empty() && given[0] != "image") {
    return UsageError("there is no command \"" + given[0] + "\"; pulga help lists them");
  }
  if (command != nullptr) {
    PrintOut(HelpText(*command));
  } else {
    PrintOut(json ? OverviewJson(commands) : Overview(commands));
  }
  return kExitOk;
}

// What a usage calls NAME is a function's, and becomes part of a path: nothing else may.
Status CheckNames(const Command& command, const Args& args) {
  if (!command.usage.starts_with("NAME")) return OkStatus();
  const size_t most = command.usage.starts_with("NAME...") ? args.words().size() : 1;
  const size_t names = std::min(most, args.words().size());
  for (size_t i = 0; i < names; ++i) PULGA_RETURN_IF_ERROR(ValidateFunctionName(args.words()[i]));
  return OkStatus();
}

int Main(std::vector<std::string> given) {
  const std::vector<Command> commands = AllCommands();
  if (given.empty()) {
    PrintErr(Overview(commands));
    return kExitUsage;
  }
  if (given[0] == "help" || given[0] == "--help" || given[0] == "-h") {
    given.erase(given.begin());
    return ShowHelp(commands, std::move(given));
  }
  if (given[0] == "--version") given[0] = "version";
  if (std::find(given.begin(), given.end(), "--json") != given.end()) TellFailuresInJson();
  const std::vector<std::string> all = given;
  const Command* command = FindCommand(commands, &given);
  if (command == nullptr) {
    if (all[0] == "image") {
      return all.size() > 1 && (all[1] == "--help" || all[1] == "-h")
                 ? ShowHelp(commands, {"image"})
                 : UsageError(
                       "pulga image wants one of import, pull, ls, inspect, verify, export, prune, "
                       "rm");
    }
    return UsageError("there is no command \"" + all[0] + "\"; pulga help lists them");
  }
  const auto args = ParseArgs(*command, given);
  if (!args.ok()) {
    return UsageError(args.error().message + "; see pulga " + command->name + " --help");
  }
  if (args->Has("help")) {
    PrintOut(HelpText(*command));
    return kExitOk;
  }
  const Status named = CheckNames(*command, *args);
  return named.ok() ? command->run(*args) : UsageError(named.error().message);
}

}  // namespace

std::vector<Command> AllCommands() {
  std::vector<Command> all;
  for (auto group : {&ServerCommands, &ImageCommands, &ImageUpkeepCommands, &PullCommands,
                     &DeployCommands, &InvokeCommands, &FunctionCommands, &TaskCommands,
                     &VolumeCommands, &SecretCommands, &AccountCommands, &PolicyCommands,
                     &OpenFaasCommands, &FaasdCommands, &RunCommands, &BenchCommands}) {
    for (Command& command : group()) all.push_back(std::move(command));
  }
  return all;
}

}  // namespace pulga::cli

int main(int argc, char** argv) {
  return pulga::cli::Main(std::vector<std::string>(argv + 1, argv + argc));
}
