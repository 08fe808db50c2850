#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/cli/reply_json.h"
#include "api/cli/tar_image.h"
#include "base/text.h"
#include "base/units.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

std::string PathOf(const std::string& name) { return "/v1/volumes/" + PercentEncode(name); }

// "12.0 MiB of 57.3 MiB", an image, or nothing where the daemon could not look.
std::string Used(const Json& volume) {
  if (TextIn(volume, "kind") == "data_set") return TextIn(volume, "image");
  if (!Field(volume, "used_bytes").is_number()) return "-";
  return HumanBytes(NumberIn(volume, "used_bytes")) + " of " +
         HumanBytes(NumberIn(volume, "capacity_bytes"));
}

// "loop file", "project quota"; nothing where the daemon could not look.
std::string Storage(const Json& volume) {
  std::string name = TextIn(volume, "storage");
  std::replace(name.begin(), name.end(), '-', ' ');
  return name;
}

int RunList(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto reply = client->Get("/v1/volumes");
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
    return kExitOk;
  }
  const Json list = ParseReply(reply->body);
  Table table({"NAME", "KIND", "SIZE", "USED", "STORAGE", "FUNCTIONS", ""});
  for (const Json& volume : ListIn(list, "volumes")) {
    const std::string size = TextIn(volume, "size");
    table.Add({{TextIn(volume, "name"), Colour::kBold},
               {TextIn(volume, "kind") == "data_set" ? "data set" : "volume"},
               {size.empty() ? "-" : size},
               {Used(volume)},
               {Storage(volume).empty() ? "-" : Storage(volume)},
               {UsedBy(volume)},
               {TextIn(volume, "trouble"), Colour::kRed}});
  }
  if (table.empty()) {
    PrintErr("no volumes yet: pulga volume create NAME --size 64Mi\n");
  } else {
    PrintOut(table.Render(Style::ForFd(STDOUT_FILENO)));
  }
  for (const Json& file : ListIn(list, "unclaimed")) {
    PrintErr("a volume file that no volume claims: " + TextIn(file, "file") + ", " +
             HumanBytes(NumberIn(file, "size_bytes")) + "\n");
  }
  return kExitOk;
}

int RunInspect(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto reply = client->Get(PathOf(args.words()[0]));
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
    return kExitOk;
  }
  const Json volume = ParseReply(reply->body);
  Table facts({});
  const auto add = [&facts](const char* label, const std::string& value) {
    if (!value.empty()) facts.Add({{label, Colour::kFaint}, {value}});
  };
  add("name", TextIn(volume, "name"));
  add("kind", TextIn(volume, "kind") == "data_set" ? "data set" : "volume");
  add("size", TextIn(volume, "size"));
  add(TextIn(volume, "kind") == "data_set" ? "image" : "used", Used(volume));
  add("storage", Storage(volume));
  add("functions", UsedBy(volume));
  add("created", TextIn(volume, "created_at"));
  add("trouble", TextIn(volume, "trouble"));
  PrintOut(facts.Render(Style::ForFd(STDOUT_FILENO)));
  return kExitOk;
}

int RunCreate(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const std::string& name = args.words()[0];
  const auto size = args.Value("size");
  auto image = args.Value("image");
  const auto file = args.Value("from");
  if (size.has_value() + image.has_value() + file.has_value() != 1) {
    return UsageError("one of --size (a volume), --image and --from (a data set)");
  }
  if (file) {
    image = "data-sets/" + name + ":latest";
    const auto imported = ImportTar(*client, {*file, *image});
    if (!imported.ok()) return Fail(imported.error());
  }
  const Json body = size ? Json({{"size", *size}}) : Json({{"image", *image}});
  const auto reply = client->SendJson("PUT", PathOf(name), body.dump());
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
    return kExitOk;
  }
  const Json volume = ParseReply(reply->body);
  const std::string what = TextIn(volume, "kind") == "data_set"
                               ? "data set " + TextIn(volume, "name") + "  " + Used(volume)
                               : "volume " + TextIn(volume, "name") + "  " +
                                     TextIn(volume, "size") + "  " + Storage(volume);
  PrintOut((reply->status == 201 ? "created " : "exists already: ") + what + "\n");
  return kExitOk;
}

int RunResize(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const Json body = {{"size", args.words()[1]}};
  const auto reply = client->SendJson("PATCH", PathOf(args.words()[0]), body.dump());
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
    return kExitOk;
  }
  const Json volume = ParseReply(reply->body);
  PrintOut("volume " + TextIn(volume, "name") + "  " + TextIn(volume, "size") + "\n");
  return kExitOk;
}

int RunRemove(const Args& args) { return RemoveEach(args, PathOf); }

}  // namespace

std::vector<Command> VolumeCommands() {
  return {
      {"volume ls", "", "List volumes and data sets, and how full they are.", "", ClientOptions(),
       0, 0, &RunList},
      {"volume create", "NAME --size SIZE | --image IMAGE | --from TAR",
       "Make a volume, or a data set.",
       "A volume is a file system of that size, for functions to keep files in; its size is taken\n"
       "from the disk at once. A data set is an image whose files functions may read; of a tar, "
       "one\n"
       "is made first (data-sets/NAME). Both are there until they are removed.",
       std::vector<Option>{{"size", 's', "SIZE", "64Mi, 2Gi"},
                           {"image", 'i', "IMAGE", "an image that was imported"},
                           {"from", 0, "TAR", "a plain tar with the files"}} +
           ClientOptions(),
       1, 1, &RunCreate},
      {"volume inspect", "NAME", "Show one volume or data set.", "", ClientOptions(), 1, 1,
       &RunInspect},
      {"volume resize", "NAME SIZE", "Give a volume another size.",
       "Also while functions use it. Only one that is kept by a project quota can become smaller.",
       ClientOptions(), 2, 2, &RunResize},
      {"volume rm", "NAME...", "Remove volumes with all that is in them, or data sets.",
       "Not while a deployed function has them.", ClientOptions(), 1, 100, &RunRemove},
  };
}

}  // namespace pulga::cli
