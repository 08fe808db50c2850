#include "api/cli/args.h"

#include <algorithm>

#include "base/text.h"

namespace pulga::cli {
namespace {

Error Usage(std::string message) { return Error{Code::kInvalidArgument, 0, std::move(message)}; }

const Option* FindOption(const Command& command, std::string_view name) {
  for (const Option& option : command.options) {
    const bool by_letter = name.size() == 1 && option.letter != 0 && name[0] == option.letter;
    if (by_letter || (name.size() > 1 && option.name == name)) return &option;
  }
  return nullptr;
}

// Takes `--name`, `--name=value`, `--name value`, `-x`, `-x value`, `-xvalue`.
Status TakeOption(const Command& command, const std::vector<std::string>& given, size_t* at,
                  Args* args) {
  const std::string& text = given[*at];
  const bool is_long = text[1] == '-';
  const size_t equals = is_long ? text.find('=') : std::string::npos;
  const std::string name = is_long
                               ? text.substr(2, equals == std::string::npos ? equals : equals - 2)
                               : text.substr(1, 1);
  const Option* option = FindOption(command, name);
  const std::string shown = (is_long ? "--" : "-") + name;
  if (option == nullptr) return Usage("unknown option " + Printable(shown, 60));
  if (option->value_name.empty()) {
    if (equals != std::string::npos) return Usage(shown + " takes no value");
    if (!is_long && text.size() > 2) return Usage("write " + shown + " by itself");
    args->AddOption(option->name, "");
    return OkStatus();
  }
  if (equals != std::string::npos) {
    args->AddOption(option->name, text.substr(equals + 1));
  } else if (!is_long && text.size() > 2) {
    args->AddOption(option->name, text.substr(2));
  } else if (*at + 1 < given.size()) {
    args->AddOption(option->name, given[++*at]);
  } else {
    return Usage(shown + " needs a value: " + shown + " " + option->value_name);
  }
  return OkStatus();
}

}  // namespace

std::optional<std::string> Args::Value(const std::string& name) const {
  const auto it = options_.find(name);
  if (it == options_.end()) return std::nullopt;
  return it->second.back();
}

const std::vector<std::string>& Args::Values(const std::string& name) const {
  static const std::vector<std::string> kNone;
  const auto it = options_.find(name);
  return it == options_.end() ? kNone : it->second;
}

Result<Args> ParseArgs(const Command& command, const std::vector<std::string>& given) {
  Args args;
  bool options_end = false;
  for (size_t i = 0; i < given.size(); ++i) {
    const std::string& text = given[i];
    if (!options_end && text == "--") {
      options_end = true;
    } else if (!options_end && text.size() > 1 && text[0] == '-') {
      PULGA_RETURN_IF_ERROR(TakeOption(command, given, &i, &args));
    } else {
      args.AddWord(text);
      options_end = options_end || command.words == Command::Words::kEndOptions;
    }
  }
  if (args.Has("help")) return args;
  if (args.words().size() < command.min_words)
    return Usage("something is missing: " + command.usage);
  if (args.words().size() > command.max_words) {
    return Usage("unexpected \"" + Printable(args.words()[command.max_words], 60) + "\"");
  }
  return args;
}

std::string HelpText(const Command& command) {
  std::string out = "Usage: pulga " + command.name;
  if (!command.usage.empty()) out += " " + command.usage;
  out += "\n\n" + command.summary + "\n";
  if (!command.details.empty()) out += "\n" + command.details + "\n";
  std::vector<std::pair<std::string, std::string>> rows;
  size_t width = 0;
  for (const Option& option : command.options) {
    std::string left = option.letter != 0 ? std::string("-") + option.letter + ", " : "    ";
    left += "--" + option.name + (option.value_name.empty() ? "" : " " + option.value_name);
    width = std::max(width, left.size());
    rows.emplace_back(left, option.help);
  }
  if (!rows.empty()) out += "\nOptions:\n";
  for (const auto& [left, right] : rows) {
    out += "  " + left + std::string(width - left.size() + 2, ' ') + right + "\n";
  }
  return out;
}

}  // namespace pulga::cli
