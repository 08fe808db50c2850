#include <termios.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/cli/reply_json.h"
#include "base/text.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

std::string UserPath(const std::string& name) { return "/v1/users/" + PercentEncode(name); }
std::string KeyPath(const std::string& id) { return "/v1/keys/" + PercentEncode(id); }

struct Exchange {
  std::string method;
  std::string target;
  std::string body;  // JSON; "" with GET
};
// Calls, and prints the reply: as it is with --json, else as `show` has it.
int Ask(const Args& args, const Exchange& exchange, const std::function<void(const Json&)>& show) {
  const auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto reply = exchange.method == "GET"
                         ? client->Get(exchange.target)
                         : client->SendJson(exchange.method, exchange.target, exchange.body);
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
  } else {
    show(ParseReply(reply->body));
  }
  return kExitOk;
}

bool IsDisabled(const Json& user) { return Field(user, "disabled") == true; }

void ShowUser(const Json& user) {
  PrintOut("user " + TextIn(user, "name") + "  " + TextIn(user, "role") +
           (IsDisabled(user) ? "  disabled" : "") + "\n");
}

int RunUserList(const Args& args) {
  return Ask(args, {"GET", "/v1/users", ""}, [](const Json& reply) {
    Table table({"NAME", "ROLE", "STATE", "CREATED"});
    for (const Json& user : ListIn(reply, "users")) {
      table.Add({{TextIn(user, "name"), Colour::kBold},
                 {TextIn(user, "role")},
                 {IsDisabled(user) ? "disabled" : "active"},
                 {TextIn(user, "created_at")}});
    }
    PrintOut(table.Render(Style::ForFd(STDOUT_FILENO)));
  });
}

int RunUserCreate(const Args& args) {
  const Json body = {{"name", args.words()[0]}, {"role", args.Value("role").value_or("limited")}};
  return Ask(args, {"POST", "/v1/users", body.dump()}, ShowUser);
}

int RunUserUpdate(const Args& args) {
  if (args.Has("disable") && args.Has("enable")) {
    return UsageError("either --disable or --enable");
  }
  Json body = Json::object();
  if (const auto role = args.Value("role")) body["role"] = *role;
  if (args.Has("disable")) body["disabled"] = true;
  if (args.Has("enable")) body["disabled"] = false;
  if (body.empty()) return UsageError("what shall change? --role, --disable or --enable");
  return Ask(args, {"PATCH", UserPath(args.words()[0]), body.dump()}, ShowUser);
}

std::string ScopesOf(const Json& key) {
  std::string out;
  for (const Json& scope : ListIn(key, "scopes")) {
    if (scope.is_string()) out += (out.empty() ? "" : ", ") + scope.get<std::string>();
  }
  return out;
}

void ShowNewKey(const Json& key) {
  // The key alone on stdout, so that it can go into a file or a variable.
  const std::string end = TextIn(key, "expires_at");
  PrintErr("key " + TextIn(key, "id") + " of user " + TextIn(key, "user") + " (" + ScopesOf(key) +
           ")" + (end.empty() ? "" : ", until " + end) + "; it is shown this once:\n");
  PrintOut(TextIn(key, "key") + "\n");
}

// While it lives, what is typed does not show.
class HiddenInput {
 public:
  HiddenInput() : terminal_(isatty(STDIN_FILENO) == 1 && tcgetattr(STDIN_FILENO, &before_) == 0) {
    if (!terminal_) return;
    termios hidden = before_;
    hidden.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
  }
  ~HiddenInput() {
    if (!terminal_) return;
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before_);
    PrintErr("\n");
  }
  bool terminal() const { return terminal_; }

 private:
  termios before_ = {};
  bool terminal_;
};

// A line of stdin, without its end; never an argument: those everybody on the machine can read.
std::string ReadSecretLine(const std::string& prompt) {
  const HiddenInput hidden;
  if (hidden.terminal()) PrintErr(prompt);
  std::string line;
  char byte = 0;
  while (line.size() < 4096 && read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n') line += byte;
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

int RunUserPassword(const Args& args) {
  Json body = Json::object();
  if (args.Has("current")) body["current"] = ReadSecretLine("the password until now: ");
  body["password"] = ReadSecretLine("the new password: ");
  const std::string& name = args.words()[0];
  return Ask(args, {"PUT", UserPath(name) + "/password", body.dump()},
             [&](const Json&) { PrintOut("user " + name + " has another password\n"); });
}

int RunSignIn(const Args& args) {
  const Json body = {{"name", args.words()[0]}, {"password", ReadSecretLine("password: ")}};
  return Ask(args, {"POST", "/v1/sign-in", body.dump()}, ShowNewKey);
}

int RunUserRemove(const Args& args) { return RemoveEach(args, UserPath); }

std::string TimeOr(const Json& key, const char* field, const char* absent) {
  const std::string time = TextIn(key, field);
  return time.empty() ? absent : time;
}

int RunKeyList(const Args& args) {
  return Ask(args, {"GET", "/v1/keys", ""}, [](const Json& reply) {
    Table table({"ID", "USER", "SCOPES", "EXPIRES", "LAST USED", "LABEL"});
    for (const Json& key : ListIn(reply, "keys")) {
      table.Add({{TextIn(key, "id"), Colour::kBold},
                 {TextIn(key, "user")},
                 {ScopesOf(key)},
                 {TimeOr(key, "expires_at", "never")},
                 {TimeOr(key, "last_used_at", "never")},
                 {TextIn(key, "label")}});
    }
    if (table.empty()) {
      PrintErr("no keys yet: pulga key create --scope deploy\n");
    } else {
      PrintOut(table.Render(Style::ForFd(STDOUT_FILENO)));
    }
  });
}

int RunKeyCreate(const Args& args) {
  Json body = {{"scopes", args.Values("scope")}};
  const std::pair<const char*, const char*> texts[] = {
      {"user", "user"}, {"label", "label"}, {"expires", "expires_in"}};
  for (const auto& [option, field] : texts) {
    if (const auto value = args.Value(option)) body[field] = *value;
  }
  return Ask(args, {"POST", "/v1/keys", body.dump()}, ShowNewKey);
}

int RunKeyRemove(const Args& args) { return RemoveEach(args, KeyPath); }

Option RoleOption() { return {"role", 'r', "ROLE", "administrator, standard or limited"}; }

std::vector<Command> UserCommands() {
  return {
      {"user ls", "", "List users: all of them, or yourself.", "", ClientOptions(), 0, 0,
       &RunUserList},
      {"user create", "NAME [--role ROLE]", "Add a user; a limited one unless told otherwise.", "",
       std::vector<Option>{RoleOption()} + ClientOptions(), 1, 1, &RunUserCreate},
      {"user update", "NAME [--role ROLE] [--disable|--enable]",
       "Give a user another role, or lock them out.",
       "It holds from the next request on. The keys of a disabled user stay, and open nothing.",
       std::vector<Option>{RoleOption(),
                           {"disable", 0, "", "their keys open nothing"},
                           {"enable", 0, "", "their keys work again"}} +
           ClientOptions(),
       1, 1, &RunUserUpdate},
      {"user password", "NAME [--current]", "Give a user a password.",
       "It is read from the terminal or from stdin. All that the user signed in for ends.",
       std::vector<Option>{
           {"current", 'c', "", "read the one until now first, as all but administrators must"}} +
           ClientOptions(),
       1, 1, &RunUserPassword},
      {"sign-in", "NAME", "Get a key for 12 hours by a password.",
       "The password is read from the terminal or from stdin, the key printed on stdout:\n"
       "export PULGA_KEY=$(pulga sign-in ada).",
       ClientOptions(), 1, 1, &RunSignIn},
      {"user rm", "NAME...", "Remove users with their keys.", "", ClientOptions(), 1, 100,
       &RunUserRemove},
  };
}

}  // namespace

std::vector<Command> AccountCommands() {
  std::vector<Command> commands = UserCommands();
  const std::vector<Command> keys = {
      {"key ls", "", "List API keys: yours, or all of them for an administrator.", "",
       ClientOptions(), 0, 0, &RunKeyList},
      {"key create", "--scope SCOPE [options]", "Make an API key.",
       "It is printed once and kept nowhere. With --scope invoke it calls functions, with --scope\n"
       "deploy it deploys them, with --scope sign-in it does what else its user may do.",
       std::vector<Option>{{"scope", 's', "SCOPE", "sign-in, invoke or deploy; may be repeated"},
                           {"user", 'u', "NAME", "whose it is (you)"},
                           {"expires", 0, "TIME", "720h: how long it is valid (until revoked)"},
                           {"label", 'l', "TEXT", "what it is for"}} +
           ClientOptions(),
       0, 0, &RunKeyCreate},
      {"key rm", "ID...", "Revoke API keys; at once.", "", ClientOptions(), 1, 100, &RunKeyRemove},
  };
  commands.insert(commands.end(), keys.begin(), keys.end());
  return commands;
}

}  // namespace pulga::cli
