// Command-line parsing and the help that goes with it. A command is a row of data: its options, its
// words, its function. Pure but for the commands' own functions.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pulga::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

struct Option {
  std::string name;        // "memory": --memory
  char letter = 0;         // 'e': -e
  std::string value_name;  // "" = a switch
  std::string help;
};

class Args {
 public:
  bool Has(const std::string& name) const { return options_.contains(name); }
  // The last one given.
  std::optional<std::string> Value(const std::string& name) const;
  const std::vector<std::string>& Values(const std::string& name) const;
  const std::vector<std::string>& words() const { return words_; }

  void AddOption(const std::string& name, std::string value) {
    options_[name].push_back(std::move(value));
  }
  void AddWord(std::string word) { words_.push_back(std::move(word)); }

 private:
  std::map<std::string, std::vector<std::string>> options_;
  std::vector<std::string> words_;
};

struct Command {
  enum class Words {
    kAnywhere,
    kEndOptions
  };  // kEndOptions: what follows the first word is its own

  std::string name;     // "image import"
  std::string usage;    // "FILE|- [options]"
  std::string summary;  // one line
  std::string details;  // more, or ""
  std::vector<Option> options;
  size_t min_words = 0;
  size_t max_words = 0;
  int (*run)(const Args& args) = nullptr;
  Words words = Words::kAnywhere;
  bool listed = true;  // in `pulga help`
};

// `given` is what follows the command's name. Errors are for people: "unknown option --foo".
Result<Args> ParseArgs(const Command& command, const std::vector<std::string>& given);
std::string HelpText(const Command& command);

}  // namespace pulga::cli
