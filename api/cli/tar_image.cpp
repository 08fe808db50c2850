#include "api/cli/tar_image.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "api/cli/output.h"
#include "base/file_io.h"
#include "images/archive_export.h"
#include "images/digest.h"
#include "images/image_ref.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kChunk = 256 * 1024;

// `take` gets the file piece by piece, from its beginning.
template <typename Take>
Status ReadThrough(int fd, const Take& take) {
  if (lseek(fd, 0, SEEK_SET) != 0) return LastError("seek");
  std::vector<char> buffer(kChunk);
  while (true) {
    const ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n == 0) return OkStatus();
    if (n < 0) return LastError("read");
    PULGA_RETURN_IF_ERROR(take(std::string_view(buffer.data(), static_cast<size_t>(n))));
  }
}

Result<UniqueFd> OpenTar(const std::string& name, uint64_t* size) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(name, O_RDONLY));
  struct stat st = {};
  if (fstat(fd.get(), &st) != 0) return LastError("stat " + name);
  constexpr size_t kMagicAt = 257;
  const auto head = S_ISREG(st.st_mode) ? ReadAt(fd.get(), kMagicAt, 5) : Result<std::string>("");
  if (!head.ok() || *head != "ustar") {
    return Error{Code::kInvalidArgument, 0,
                 name + " is no tar: a plain one is wanted, as `tar -cf` makes it"};
  }
  *size = static_cast<uint64_t>(st.st_size);
  return fd;
}

struct Archive {
  ExportPlan plan;
  std::string config;
};

Result<Archive> PlanArchive(int fd, uint64_t size, const TarImage& tar) {
  Hasher hasher(DigestAlgorithm::kSha256);
  ProgressBar bar("read", size);
  uint64_t done = 0;
  PULGA_RETURN_IF_ERROR(ReadThrough(fd, [&](std::string_view bytes) {
    hasher.Update(bytes);
    bar.Update(done += bytes.size());
    return OkStatus();
  }));
  const std::string diff_id = hasher.Finish().ToString();
  Archive archive;
  archive.config = Json({{"architecture", tar.architecture},
                         {"os", "linux"},
                         {"config", Json::object()},
                         {"rootfs", {{"type", "layers"}, {"diff_ids", {diff_id}}}}})
                       .dump();
  ImageRecord image;
  image.digest = "sha256:" + Sha256Hex(archive.config);
  image.config_bytes = archive.config.size();
  LayerRecord layer;
  layer.diff_id = diff_id.substr(diff_id.find(':') + 1);
  layer.stream_bytes = size;
  layer.record_bytes = 1;  // it has one as soon as it is imported
  image.layers = {layer};
  PULGA_ASSIGN_OR_RETURN(const std::string name, NormalizeImageRef(tar.ref));
  PULGA_ASSIGN_OR_RETURN(archive.plan, PlanExport(image, name));
  return archive;
}

// The daemon may answer before it has read all: then nobody reads on, which is no failure of ours.
void WriteArchive(const Archive& archive, int tar_fd, UniqueFd out) {
  sigset_t pipe_signal;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, nullptr);
  for (const ExportPart& part : archive.plan.parts) {
    if (!WriteAll(out.get(), part.text).ok()) return;
    if (part.config_bytes != 0 && !WriteAll(out.get(), archive.config).ok()) return;
    if (part.layer_bytes == 0) continue;
    const auto write = [&](std::string_view bytes) { return WriteAll(out.get(), bytes); };
    if (!ReadThrough(tar_fd, write).ok()) return;
  }
}

}  // namespace

Result<ClientReply> ImportTar(const DaemonClient& client, const TarImage& tar) {
  uint64_t size = 0;
  PULGA_ASSIGN_OR_RETURN(const UniqueFd file, OpenTar(tar.file, &size));
  PULGA_ASSIGN_OR_RETURN(const Archive archive, PlanArchive(file.get(), size, tar));
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return LastError("pipe2");
  UniqueFd read_end(fds[0]);
  std::thread writer(
      [&archive, &file, out = fds[1]] { WriteArchive(archive, file.get(), UniqueFd(out)); });
  ClientRequest request;
  request.method = "POST";
  request.target = "/v1/images?any_platform=1";
  request.headers.emplace_back("Content-Type", "application/x-tar");
  request.body_fd = read_end.get();
  request.body_size = archive.plan.bytes;
  ProgressBar bar("import", archive.plan.bytes);
  request.on_progress = [&bar](uint64_t sent) { bar.Update(sent); };
  auto reply = client.Call(std::move(request));
  read_end.Reset();
  writer.join();
  return reply;
}

}  // namespace pulga::cli
