#include "sandbox/seccomp_list.h"

#include <errno.h>
#include <linux/seccomp.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "base/text.h"

namespace pulga {
namespace {

const std::map<std::string_view, uint32_t> kActions = {
    {"allow", SECCOMP_RET_ALLOW},
    {"kill", SECCOMP_RET_KILL_PROCESS},
    {"listed", kAsListed},
    {"EPERM", SECCOMP_RET_ERRNO | EPERM},
    {"ENOSYS", SECCOMP_RET_ERRNO | ENOSYS},
};

Error LineError(int line, std::string_view problem) {
  return Error{Code::kInvalidArgument, 0,
               "line " + std::to_string(line) + ": " + std::string(problem)};
}

std::vector<std::string_view> Words(std::string_view text) {
  std::vector<std::string_view> words;
  for (const std::string_view word : Split(text, ' ')) {
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

std::optional<uint32_t> ParseNumber(std::string_view text) {
  if (!text.starts_with("0x")) {
    const auto value = ParseUint(text, UINT32_MAX);
    if (!value) return std::nullopt;
    return static_cast<uint32_t>(*value);
  }
  if (text.size() < 3 || text.size() > 10) return std::nullopt;
  uint32_t value = 0;
  for (const char c : ToLower(text.substr(2))) {
    const char* digits = "0123456789abcdef";
    const size_t digit = std::string_view(digits).find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    value = value << 4 | static_cast<uint32_t>(digit);
  }
  return value;
}

// "allow", "EPERM" or "errno 97".
std::optional<uint32_t> ParseAction(std::string_view text) {
  const auto words = Words(text);
  if (words.size() == 1) {
    const auto found = kActions.find(words[0]);
    if (found != kActions.end()) return found->second;
  }
  if (words.size() == 2 && words[0] == "errno") {
    const auto number = ParseUint(words[1], 4095);
    if (number) return SECCOMP_RET_ERRNO | static_cast<uint32_t>(*number);
  }
  return std::nullopt;
}

// "arg1 & 0xF000 in 0 0x8000"
std::optional<ArgTest> ParseTest(std::string_view text) {
  const auto words = Words(text);
  if (words.size() < 3 || words[0].size() != 4 || !words[0].starts_with("arg")) return std::nullopt;
  ArgTest test;
  const auto arg = ParseUint(words[0].substr(3), 5);
  if (!arg) return std::nullopt;
  test.arg = static_cast<uint32_t>(*arg);
  size_t next = 1;
  if (words[next] == "&") {
    const auto mask = ParseNumber(words[next + 1]);
    if (!mask) return std::nullopt;
    test.mask = *mask;
    next += 2;
  }
  if (next + 1 >= words.size() || words[next] != "in") return std::nullopt;
  for (++next; next < words.size(); ++next) {
    const auto value = ParseNumber(words[next]);
    if (!value) return std::nullopt;
    test.values.push_back(*value);
  }
  return test;
}

std::optional<Clause> ParseClause(std::string_view text) {
  Clause clause;
  const size_t arrow = text.find("->");
  if (arrow != std::string_view::npos) {
    std::string_view tests = text.substr(0, arrow);
    while (true) {
      const size_t end = tests.find(" and ");
      const auto test = ParseTest(tests.substr(0, end));
      if (!test) return std::nullopt;
      clause.tests.push_back(*test);
      if (end == std::string_view::npos) break;
      tests.remove_prefix(end + 5);
    }
    text.remove_prefix(arrow + 2);
  }
  const auto action = ParseAction(text);
  if (!action) return std::nullopt;
  clause.action = *action;
  return clause;
}

// "socket: arg0 in 1 2 -> allow; EPERM"
std::optional<SyscallRule> ParseConditional(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  SyscallRule rule;
  rule.name = Trim(line.substr(0, colon));
  for (const std::string_view part : Split(line.substr(colon + 1), ';')) {
    const auto clause = ParseClause(part);
    if (!clause) return std::nullopt;
    rule.clauses.push_back(*clause);
  }
  if (!rule.clauses.back().tests.empty()) return std::nullopt;
  return rule;
}

enum class SectionKind { kNone, kNames, kConditional, kDefault };
struct Section {
  SectionKind kind = SectionKind::kNone;
  uint32_t action = 0;
  bool here = true;  // counts on this machine
};

// The text between the brackets.
std::optional<Section> ParseSection(std::string_view text, const std::string& machine) {
  if (text == "conditional") return Section{SectionKind::kConditional, 0, true};
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos && text.substr(0, colon) == "default") {
    const auto action = ParseAction(text.substr(colon + 1));
    if (!action) return std::nullopt;
    return Section{SectionKind::kDefault, *action, true};
  }
  const auto head = Words(text.substr(0, colon));
  const auto action = head.empty() ? std::nullopt : ParseAction(head[0]);
  if (!action) return std::nullopt;
  Section section{SectionKind::kNames, *action, colon == std::string_view::npos};
  if (colon != std::string_view::npos) {
    for (const std::string_view word : Words(text.substr(colon + 1))) {
      section.here = section.here || word == machine;
    }
  }
  return section;
}

class Parser {
 public:
  explicit Parser(const std::string& machine) : machine_(machine) {}

  Status TakeLine(std::string_view line) {
    ++number_;
    line = Trim(line.substr(0, line.find('#')));
    if (line.empty()) return OkStatus();
    if (line.front() == '[') return TakeSection(line);
    if (section_.kind == SectionKind::kConditional) {
      auto rule = ParseConditional(line);
      if (!rule) return LineError(number_, "not a rule: " + Printable(line));
      return Add(std::move(*rule));
    }
    if (section_.kind != SectionKind::kNames) return LineError(number_, "names outside a section");
    for (const std::string_view name : Words(line)) {
      if (!section_.here) continue;
      PULGA_RETURN_IF_ERROR(Add({std::string(name), {Clause{{}, section_.action}}}));
    }
    return OkStatus();
  }

  Result<SyscallList> Finish() {
    if (!has_default_) return LineError(number_, "no [default: ...] section");
    return std::move(list_);
  }

 private:
  Status TakeSection(std::string_view line) {
    const auto section =
        line.back() == ']' ? ParseSection(line.substr(1, line.size() - 2), machine_) : std::nullopt;
    if (!section) return LineError(number_, "unknown section " + Printable(line));
    section_ = *section;
    if (section_.kind == SectionKind::kDefault) {
      list_.default_action = section_.action;
      has_default_ = true;
    }
    return OkStatus();
  }

  Status Add(SyscallRule rule) {
    if (!seen_.insert(rule.name).second) return LineError(number_, rule.name + " is named twice");
    list_.rules.push_back(std::move(rule));
    return OkStatus();
  }

  const std::string& machine_;
  int number_ = 0;
  Section section_;
  bool has_default_ = false;
  std::set<std::string> seen_;
  SyscallList list_;
};

bool Contains(const std::vector<ArgTest>& tests, const std::vector<ArgTest>& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const ArgTest& test) {
    return std::find(tests.begin(), tests.end(), test) != tests.end();
  });
}

// What `says` answers where `clause` is the one that decided.
void AddListed(std::vector<Clause>& out, const Clause& clause, const std::vector<Clause>& says) {
  for (const Clause& answer : says) {
    Clause both = {clause.tests, answer.action};
    const bool always = Contains(clause.tests, answer.tests);
    if (!always) both.tests.insert(both.tests.end(), answer.tests.begin(), answer.tests.end());
    out.push_back(std::move(both));
    if (always) return;
  }
}

}  // namespace

Result<SyscallList> ParseSyscallList(std::string_view text, const std::string& machine) {
  Parser parser(machine);
  for (const std::string_view line : Split(text, '\n')) {
    PULGA_RETURN_IF_ERROR(parser.TakeLine(line));
  }
  return parser.Finish();
}

SyscallList Widened(SyscallList list, const SyscallList& more) {
  for (const SyscallRule& rule : more.rules) {
    const auto same = [&](const SyscallRule& r) { return r.name == rule.name; };
    const auto found = std::find_if(list.rules.begin(), list.rules.end(), same);
    const std::vector<Clause> otherwise = {Clause{{}, list.default_action}};
    SyscallRule wide = {rule.name, {}};
    for (const Clause& clause : rule.clauses) {
      if (clause.action == kAsListed) {
        AddListed(wide.clauses, clause, found == list.rules.end() ? otherwise : found->clauses);
      } else {
        wide.clauses.push_back(clause);
      }
    }
    if (found == list.rules.end()) {
      list.rules.push_back(std::move(wide));
    } else {
      *found = std::move(wide);
    }
  }
  return list;
}

bool IsRefusal(uint32_t action) {
  const uint32_t number = action & SECCOMP_RET_DATA;
  return (action & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO && number != 0 && number != ENOSYS;
}

SyscallList Counted(SyscallList list) {
  for (SyscallRule& rule : list.rules) {
    for (Clause& clause : rule.clauses) {
      if (IsRefusal(clause.action)) clause.action = SECCOMP_RET_USER_NOTIF;
    }
  }
  return list;
}

SyscallList RestOf(const SyscallList& list, const SyscallList& more) {
  SyscallList rest;
  rest.default_action = SECCOMP_RET_ALLOW;
  const std::vector<Clause> otherwise = {Clause{{}, list.default_action}};
  for (const SyscallRule& named : more.rules) {
    const auto same = [&](const SyscallRule& r) { return r.name == named.name; };
    const auto found = std::find_if(list.rules.begin(), list.rules.end(), same);
    const std::vector<Clause>& says = found == list.rules.end() ? otherwise : found->clauses;
    SyscallRule rule = {named.name, {}};
    for (const Clause& clause : named.clauses) {
      if (clause.action == SECCOMP_RET_ALLOW) {
        AddListed(rule.clauses, clause, says);
      } else {
        rule.clauses.push_back({clause.tests, SECCOMP_RET_ALLOW});  // answered by the first
      }
    }
    // The first filter took such a call for set-up's, and counts none: no way to ask in silence.
    for (Clause& clause : rule.clauses) {
      if (IsRefusal(clause.action)) clause.action = SECCOMP_RET_KILL_PROCESS;
    }
    while (rule.clauses.size() > 1 &&
           rule.clauses[rule.clauses.size() - 2].action == rule.clauses.back().action) {
      rule.clauses.erase(rule.clauses.end() - 2);
    }
    rest.rules.push_back(std::move(rule));
  }
  return rest;
}

}  // namespace pulga
